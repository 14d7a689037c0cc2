//! The settings file, and that of the machine.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::Deserialize;

use super::output::Failure;
use crate::ledger::protocol::JobKind;
use crate::meter::CpuSource;
use crate::sys::trust;

/// The settings of the machine.
pub(super) const SYSTEM_FILE: &str = "/etc/jobmeter/config.toml";

/// As it stands in the file, before flags and variables.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    /// Nothing that a user says of a job counts against it: see [`super::enforced`].
    #[serde(default)]
    pub(super) enforced: bool,
    pub(super) ledger: Option<String>,
    pub(super) key_file: Option<String>,
    /// A URL, on the way to a ledger service.
    pub(super) proxy: Option<String>,
    pub(super) user: Option<String>,
    pub(super) spool_dir: Option<String>,
    #[serde(default)]
    pub(super) run: RunFile,
    #[serde(default)]
    pub(super) slurm: SlurmFile,
}

/// Its table `[slurm]`: for the plugin of deploy/slurm.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlurmFile {
    /// Whose the meter is, not root.
    pub(super) user: Option<String>,
    /// Its key; else that of the whole file.
    pub(super) key_file: Option<String>,
    pub(super) spool_dir: Option<PathBuf>,
}

/// Its table `[run]`: defaults of `jobmeter run`, written as its flags are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key")]
pub(super) struct RunFile {
    pub(super) kind: Option<JobKind>,
    pub(super) limit: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) hold: Option<String>,
    pub(super) notice: Option<String>,
    pub(super) grace: Option<String>,
    #[serde(default)]
    pub(super) wait_descendants: bool,
    /// What older files call it.
    #[serde(default)]
    pub(super) linger: bool,
    #[serde(default)]
    pub(super) quiet: bool,
    pub(super) cpu_source: Option<CpuSource>,
    pub(super) exhausted_status: Option<u8>,
    pub(super) gpus: Option<String>,
    #[serde(default)]
    pub(super) gpu_exclusive: bool,
    pub(super) nvml_library: Option<PathBuf>,
    /// Of other makers, where the rate card has no weight for them.
    #[serde(default)]
    pub(super) refuse_uncharged_gpus: bool,
    pub(super) secret_names: Option<Vec<String>>,
}

impl ConfigFile {
    /// Reads one that has to be there.
    ///
    /// # Errors
    /// Where it is not, or means nothing.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let wrong =
            |cause: String| Failure::new(format!("cannot use the settings of {}", path.display())).because(cause);
        let text = read_trusted(path).map_err(|error| wrong(error.to_string()))?;
        let file: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        if file.enforced && path != Path::new(SYSTEM_FILE) {
            return Err(wrong(format!("enforced = true counts in {SYSTEM_FILE} alone")));
        }
        Ok(file)
    }

    pub(super) fn key_file(&self, user: &str) -> Result<Option<String>, Failure> {
        self.key_file.as_deref().map(|text| of_user(text, user)).transpose()
    }

    pub(super) fn spool_dir(&self, user: &str) -> Result<Option<PathBuf>, Failure> {
        Ok(self.spool_dir.as_deref().map(|text| of_user(text, user)).transpose()?.map(PathBuf::from))
    }
}

/// Root acts for others by what it reads: a file that one of them could have written is none to act by.
pub(super) fn read_trusted(path: &Path) -> io::Result<String> {
    if geteuid().is_root() { Ok(trust::read_to_string(path)?) } else { std::fs::read_to_string(path) }
}

/// The file of the machine, which may enforce what stands in it.
///
/// # Errors
/// Where it is there, and means nothing.
pub(super) fn of_machine() -> Result<Option<ConfigFile>, Failure> {
    let path = Path::new(SYSTEM_FILE);
    match std::fs::File::open(path).map_err(|error| error.kind()) {
        Err(io::ErrorKind::NotFound) => Ok(None),
        _ => ConfigFile::read(path).map(Some),
    }
}

/// Whether it does; what is wrong with it is said where its settings are taken.
pub(super) fn is_enforced() -> bool {
    of_machine().is_ok_and(|file| file.is_some_and(|file| file.enforced))
}

/// A place in the file may hold `{user}`, for who runs jobmeter.
fn of_user(text: &str, user: &str) -> Result<String, Failure> {
    let is_a_name = !user.is_empty() && !user.contains('/') && user != "." && user != "..";
    if text.contains("{user}") && !is_a_name {
        return Err(Failure::new(format!("{user:?} cannot stand in {text}, which {SYSTEM_FILE} names")));
    }
    Ok(text.replace("{user}", user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, "ledgr = \"x\"\n").unwrap();
        let failure = ConfigFile::read(&path).unwrap_err();
        assert!(failure.message.contains("c.toml") && failure.cause.unwrap().contains("ledgr"));
        std::fs::write(&path, "user = \"u\"\n[run]\ninterval = \"2s\"\nkind = \"generation\"\n").unwrap();
        let file = ConfigFile::read(&path).unwrap();
        assert_eq!((file.user.as_deref(), file.run.kind), (Some("u"), Some(JobKind::Generation)));
        assert!(ConfigFile::read(&directory.path().join("none.toml")).is_err());
        std::fs::write(&path, "enforced = true\n").unwrap();
        assert!(ConfigFile::read(&path).is_err(), "a user's own file enforces nothing");
    }

    #[test]
    fn a_place_may_hold_the_users_name() {
        assert_eq!(of_user("/keys/{user}", "ann").unwrap(), "/keys/ann");
        assert!(of_user("/keys/{user}", "../root").is_err() && of_user("/keys/{user}", "..").is_err());
        assert_eq!(of_user("/keys/one", "..").unwrap(), "/keys/one");
    }
}
