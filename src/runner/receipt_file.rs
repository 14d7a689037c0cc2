//! Writes the receipt so that a reader finds the old file or the whole new one, never half of one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Writes `json` to `path`: beside it and renamed where it is or will be a plain file, else (a pipe, `/dev/stdout`)
/// straight into it.
pub(super) fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    let special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    let linked = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_symlink());
    if special || linked {
        return OpenOptions::new().write(true).truncate(!special).open(path)?.write_all(json);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let result =
        File::create(&part).and_then(|mut file| file.write_all(json)).and_then(|()| std::fs::rename(&part, path));
    if result.is_err() {
        std::fs::remove_file(&part).ok();
    }
    result
}
