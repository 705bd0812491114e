/// The system allocator took a sixth of the hot path; this one takes a third of that (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    rushline::cli::main()
}
