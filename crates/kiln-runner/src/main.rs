//! The `kiln` command: see `kiln --help`.

fn main() -> std::process::ExitCode {
    kiln_runner::main()
}
