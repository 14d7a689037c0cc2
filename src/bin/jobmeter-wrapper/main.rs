//! The first process of a metered container: see [`jobmeter::runner::wrapper`]. Linked statically
//! (`cargo rustc --bin jobmeter-wrapper -- -C target-feature=+crt-static`) it loads no library of the image.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobmeter::runner::wrapper::main(std::env::args_os().skip(1))
}
