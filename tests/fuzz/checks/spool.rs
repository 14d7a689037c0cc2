//! A spool file that a power cut, a full disk or somebody else has spoiled: it is read or refused, never a panic.

use jobmeter::runner::spool::Spool;

pub fn check(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("jobmeter-fuzz-{}.spool", std::process::id()));
    std::fs::write(&path, data).expect("a file");
    let _ = Spool::peek(&path);
    std::fs::remove_file(&path).ok();
}
