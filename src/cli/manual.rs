//! `jobmeter completions` and `jobmeter man`.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use super::args::Arguments;
use super::output::{Failure, Output, print_bytes};
use crate::sys::identity::FileIdentity;

pub(super) fn completions(shell: clap_complete::Shell, _out: &Output) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "jobmeter", &mut script);
    print_bytes(&script)
}

pub(super) fn man(directory: Option<&Path>, out: &Output) -> Result<ExitCode, Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
        rendered.map_err(|error| Failure::new("the manual page cannot be made").because(error))?;
        return print_bytes(&page);
    };
    let written = FileIdentity::of_folder_of(&directory.join("page"))
        .and_then(|_as_owner| clap_mangen::generate_to(Arguments::command(), directory));
    written.map_err(|error| {
        Failure::new(format!("cannot write the manual pages into {}", directory.display())).because(error)
    })?;
    out.print(&serde_json::json!({ "directory": directory }), |_| format!("written into {}\n", directory.display()))
}
