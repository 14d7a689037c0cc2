//! Whoever cleans up after a test, however it ends: a shell that waits for the end of its standard input, and lives on where
//! this process is killed.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

fn shell() -> Child {
    let mut command = Command::new("bash");
    command.args(["-c", include_str!("janitor.sh"), "jobmeter-test-janitor"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // What is typed at the terminal, or sent to the group of the tests, is not for it.
    command.process_group(0).spawn().expect("bash starts")
}

fn tell(line: &mut ChildStdin, path: &Path) {
    line.write_all(format!("{}\n", path.display()).as_bytes()).expect("the janitor reads");
}

/// When this process has ended, takes this directory or control group away, with everything that belongs to it.
pub(crate) fn takes(path: &Path) {
    static LINE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let line = LINE.get_or_init(|| Mutex::new(shell().stdin.take().expect("its standard input")));
    tell(&mut line.lock().unwrap_or_else(PoisonError::into_inner), path);
}

/// Takes it away now.
pub(crate) fn clean(path: &Path) {
    let mut shell = shell();
    tell(&mut shell.stdin.take().expect("its standard input"), path);
    shell.wait().expect("the janitor ends");
}
