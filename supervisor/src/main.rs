//! The program `sublet`.

fn main() -> std::process::ExitCode {
    sublet_supervisor::cli::main()
}
