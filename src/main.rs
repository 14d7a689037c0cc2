//! jobmeter: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobmeter::cli::main(std::env::args_os())
}
