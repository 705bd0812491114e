/// Orders are allocated on one thread and freed on another, which this allocator is made for (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    rushline::cli::main()
}
