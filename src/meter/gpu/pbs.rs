//! TORQUE's way to say which devices a job has: a file with a line `HOST-gpuNUMBER` for each (`PBS_GPUFILE`).

use std::path::Path;

use crate::sys::trust;

/// The variable that names the file.
pub(super) const VARIABLE: &str = "PBS_GPUFILE";

/// No host has more lines in it.
const FILE_MAX_BYTES: u64 = 65_536;

/// Those of this host, between commas; where the file cannot be read, is too long, or is not of somebody who is believed, its path, which is no
/// device and is told as that.
pub(super) fn numbers(path: &str) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    let is_short = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX_BYTES);
    let text = is_short.then(|| trust::read_to_string(Path::new(path)).ok()).flatten();
    text.map_or_else(|| path.to_owned(), |text| numbers_of(&text, &host))
}

fn numbers_of(text: &str, host: &str) -> String {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let of_host = |line: &str| {
        let (name, number) = line.trim().rsplit_once("-gpu")?;
        (short(name) == short(host)).then(|| number.to_owned())
    };
    text.lines().filter_map(of_host).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_devices_of_this_host() {
        let text = "node1-gpu0\nnode1-gpu3\nnode2-gpu1\nnode1.example-gpu4\nodd\n";
        assert_eq!(
            (numbers_of(text, "node1"), numbers_of(text, "node2.example")),
            ("0,3,4".to_owned(), "1".to_owned())
        );
        assert_eq!(numbers_of("my-gpu-node-gpu2\n", "my-gpu-node"), "2");
        assert_eq!((numbers("/nowhere"), numbers("/dev/zero")), ("/nowhere".to_owned(), "/dev/zero".to_owned()));
    }
}
