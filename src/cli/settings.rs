//! Flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::Global;
use super::output::Failure;
use super::values;
use crate::ledger::Ledger;
use crate::ledger::keys::Secret;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::meter::CpuSource;

/// What holds for every verb.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) ledger: Location,
    pub(super) spool_dir: PathBuf,
    pub(super) user: String,
    /// Nobody named one, so that it is the login name.
    pub(super) user_is_default: bool,
    /// Who asks, for the books.
    pub(super) by: String,
    pub(super) run: RunFile,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    ledger: Option<String>,
    key_file: Option<String>,
    user: Option<String>,
    spool_dir: Option<PathBuf>,
    #[serde(default)]
    run: RunFile,
}

/// Its table `[run]`: defaults of `jobmeter run`, written as its flags are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    pub(super) kind: Option<JobKind>,
    pub(super) interval: Option<String>,
    pub(super) hold: Option<String>,
    pub(super) notice: Option<String>,
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
    pub(super) secret_names: Option<Vec<String>>,
}

impl Settings {
    /// A verb that asks no service (`serve` itself, which writes the first key) must not fail for want of its key.
    pub(super) fn new(global: &Global, asks_ledger: bool) -> Result<Self, Failure> {
        let file = read_config(global.config.as_deref())?;
        let state = state_directory();
        let ledger = global.ledger.clone().or(file.ledger.clone()).map_or_else(
            || state.as_ref().map(|state| Location::File(state.join("ledger.db"))).ok_or_else(no_home),
            |text| Ok(Location::parse(&text)),
        )?;
        let by = login_name();
        let named = global.user.clone().or(file.user);
        let user_is_default = named.is_none();
        let user = named.unwrap_or_else(|| by.clone());
        let user = values::name(&user).map_err(|why| Failure::new(format!("the user name {user:?}: {why}")))?;
        let spool_dir = global
            .spool_dir
            .clone()
            .or(file.spool_dir)
            .or_else(|| state.map(|state| state.join("spool")))
            .ok_or_else(no_home)?;
        let gone = |error: std::io::Error| Failure::new("the working directory cannot be found").because(error);
        let ledger = match ledger {
            Location::Service(..) if asks_ledger => {
                let key = global.key_file.as_deref().or(file.key_file.as_deref());
                ledger.with_key(key.map(read_key).transpose()?)
            }
            // Other places need none.
            ledger => ledger,
        };
        let (ledger, spool_dir) = (ledger.absolute().map_err(gone)?, std::path::absolute(spool_dir).map_err(gone)?);
        Ok(Self { ledger, spool_dir, user, user_is_default, by, run: file.run })
    }

    pub(super) fn connect(&self) -> Result<Box<dyn Ledger>, Failure> {
        Ok(self.ledger.connect()?)
    }
}

fn no_home() -> Failure {
    Failure::new("neither HOME nor XDG_STATE_HOME is set, so there is no default ledger")
        .hint("name one by --ledger PATH and --spool-dir DIR")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn directory_of(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home))).map(|path| path.join("jobmeter"))
}

fn state_directory() -> Option<PathBuf> {
    if is_root() { Some(PathBuf::from("/var/lib/jobmeter")) } else { directory_of("XDG_STATE_HOME", ".local/state") }
}

/// A key, or the file that holds it.
fn read_key(text: &str) -> Result<Secret, Failure> {
    if text.is_empty() {
        return Err(Failure::new("JOBMETER_KEY is empty").hint("unset it, or give a key or the file that holds one"));
    }
    if text.starts_with("jm_") {
        return text.parse().map_err(|why: String| Failure::new(format!("the key of JOBMETER_KEY: {why}")));
    }
    let wrong = |cause: String| Failure::new(format!("cannot use the key file {text}")).because(cause);
    let held = std::fs::read_to_string(text).map_err(|error| wrong(error.to_string()))?;
    held.parse().map_err(wrong)
}

/// A file that was named must be there; the default ones need not.
fn read_config(named: Option<&Path>) -> Result<ConfigFile, Failure> {
    let path = if let Some(path) = named {
        path.to_owned()
    } else {
        let own = directory_of("XDG_CONFIG_HOME", ".config").map(|path| path.join("config.toml"));
        let candidates = own.into_iter().filter(|_| !is_root()).chain([PathBuf::from("/etc/jobmeter/config.toml")]);
        match candidates.into_iter().find(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(ConfigFile::default()),
        }
    };
    let wrong = |cause: String| Failure::new(format!("cannot use the settings of {}", path.display())).because(cause);
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
}

/// The name of the real user; the number where it has no name, as in containers.
fn login_name() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, "ledgr = \"x\"\n").unwrap();
        let failure = read_config(Some(&path)).unwrap_err();
        assert!(failure.message.contains("c.toml") && failure.cause.unwrap().contains("ledgr"));
        std::fs::write(&path, "user = \"u\"\n[run]\ninterval = \"2s\"\nkind = \"generation\"\n").unwrap();
        let file = read_config(Some(&path)).unwrap();
        assert_eq!((file.user.as_deref(), file.run.kind), (Some("u"), Some(JobKind::Generation)));
        assert!(read_config(Some(&directory.path().join("none.toml"))).is_err());
    }
}
