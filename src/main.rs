fn main() -> std::process::ExitCode {
    rushline::cli::main()
}
