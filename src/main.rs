//! The `gatepost` command.

fn main() -> std::process::ExitCode {
    gatepost::cli::run()
}
