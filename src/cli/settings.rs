//! Flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::Global;
use super::enforced::{Said, of_user, same_path};
use super::output::Failure;
use super::values;
use crate::ledger::Ledger;
use crate::ledger::keys::Secret;
use crate::ledger::location::Location;
use crate::ledger::protocol::JobKind;
use crate::meter::CpuSource;
use crate::sys::trust;

/// The settings of a machine.
pub(super) const SYSTEM_FILE: &str = "/etc/jobmeter/config.toml";

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
    /// A user may make a limit smaller, and no more.
    pub(super) enforced: bool,
    pub(super) run: RunFile,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// Nothing that a user says of a job counts against it: see [`super::enforced`].
    #[serde(default)]
    enforced: bool,
    ledger: Option<String>,
    key_file: Option<String>,
    /// A URL, on the way to a ledger service.
    proxy: Option<String>,
    user: Option<String>,
    spool_dir: Option<String>,
    #[serde(default)]
    run: RunFile,
}

/// Its table `[run]`: defaults of `jobmeter run`, written as its flags are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    pub(super) kind: Option<JobKind>,
    pub(super) limit: Option<String>,
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

impl ConfigFile {
    fn key_file(&self, user: &str) -> Result<Option<String>, Failure> {
        self.key_file.as_deref().map(|text| of_user(text, user)).transpose()
    }

    fn spool_dir(&self, user: &str) -> Result<Option<PathBuf>, Failure> {
        Ok(self.spool_dir.as_deref().map(|text| of_user(text, user)).transpose()?.map(PathBuf::from))
    }
}

impl Settings {
    /// A verb that asks no service (`serve` itself, which writes the first key) must not fail for want of its key. `said` is
    /// what was said of a job, which enforced settings may refuse.
    pub(super) fn new(global: &Global, asks_ledger: bool, said: Option<&Said<'_>>) -> Result<Self, Failure> {
        let system = read_system_file()?;
        let by = login_name();
        match (system, said) {
            (Some(file), Some(said)) if file.enforced => Self::enforced(global, file, by, said),
            (system, _) => Self::chosen(global, asks_ledger, system, by),
        }
    }

    fn chosen(global: &Global, asks_ledger: bool, system: Option<ConfigFile>, by: String) -> Result<Self, Failure> {
        let file = read_config(global.config.as_deref(), system)?;
        let state = state_directory();
        let ledger = global.ledger.clone().or(file.ledger.clone()).map_or_else(
            || state.as_ref().map(|state| Location::File(state.join("ledger.db"))).ok_or_else(no_home),
            |text| Ok(Location::parse(&text)),
        )?;
        let named = global.user.clone().or(file.user.clone());
        let spool_dir = global.spool_dir.clone().map(Ok).or(file.spool_dir(&by)?.map(Ok));
        let spool_dir = spool_dir.unwrap_or_else(|| state.map(|state| state.join("spool")).ok_or_else(no_home))?;
        let key = global.key_file.clone().or(file.key_file(&by)?);
        Self::put_together(file, by, named, ledger, key.filter(|_| asks_ledger), spool_dir)
    }

    /// What the user has said may repeat what holds, as a `jobmeter` within a job does.
    fn enforced(global: &Global, file: ConfigFile, by: String, said: &Said<'_>) -> Result<Self, Failure> {
        said.refuse_what_is_not_the_users()?;
        let unset = |name: &str| Failure::new(format!("{SYSTEM_FILE} enforces its settings, but does not say {name}"));
        let state = state_directory().filter(|_| is_root());
        let by_default = |name: &str| state.as_ref().map(|state| state.join(name));
        // The flags of root, and what is the same as in the file, have passed.
        let ledger = match file.ledger.as_deref().map(Location::parse) {
            Some(ledger) => ledger,
            None => by_default("ledger.db").map(Location::File).ok_or_else(|| unset("ledger"))?,
        };
        let spool_dir = file.spool_dir(&by)?.or_else(|| by_default("spool")).ok_or_else(|| unset("spool_dir"))?;
        let (key, config) = (file.key_file(&by)?, Path::new(SYSTEM_FILE));
        let same_ledger = global.ledger.as_deref().is_none_or(|given| given == ledger.to_string());
        said.refuse_unless("ledger", same_ledger)?;
        said.refuse_unless("key_file", global.key_file == key)?;
        let user = file.user.as_ref().or(said.job_user()).unwrap_or(&by);
        said.refuse_unless("user", global.user.as_ref() == Some(user))?;
        said.refuse_unless("config", global.config.as_deref().is_none_or(|given| same_path(given, config)))?;
        said.refuse_unless("spool_dir", global.spool_dir.as_deref().is_none_or(|given| same_path(given, &spool_dir)))?;
        let ledger = global.ledger.as_deref().filter(|_| !same_ledger).map_or(ledger, Location::parse);
        let named = global.user.clone().filter(|given| given != user).or(file.user.clone());
        let spool_dir = global.spool_dir.clone().unwrap_or(spool_dir);
        Self::put_together(file, by, named, ledger, global.key_file.clone().or(key), spool_dir)
    }

    fn put_together(
        file: ConfigFile,
        by: String,
        named: Option<String>,
        ledger: Location,
        key_file: Option<String>,
        spool_dir: PathBuf,
    ) -> Result<Self, Failure> {
        let user_is_default = named.is_none();
        let user = named.unwrap_or_else(|| by.clone());
        let user = values::name(&user).map_err(|why| Failure::new(format!("the user name {user:?}: {why}")))?;
        let gone = |error: std::io::Error| Failure::new("the working directory cannot be found").because(error);
        let ledger = match ledger {
            Location::Service(_) => ledger.with_key(key_file.as_deref().map(read_key).transpose()?, file.proxy),
            // Other places need none.
            ledger => ledger,
        };
        let (ledger, spool_dir) = (ledger.absolute().map_err(gone)?, std::path::absolute(spool_dir).map_err(gone)?);
        Ok(Self { ledger, spool_dir, user, user_is_default, by, enforced: file.enforced, run: file.run })
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

pub(super) fn state_directory() -> Option<PathBuf> {
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
    read_trusted(Path::new(text)).map_err(wrong)?.parse().map_err(wrong)
}

/// Root acts for others by what it reads: a file that one of them could have written is none to act by.
fn read_trusted(path: &Path) -> Result<String, String> {
    if is_root() {
        return trust::read_to_string(path).map_err(|why| why.to_string());
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The file of the machine, which may enforce what stands in it.
fn read_system_file() -> Result<Option<ConfigFile>, Failure> {
    let path = Path::new(SYSTEM_FILE);
    if path.exists() { parse_file(path).map(Some) } else { Ok(None) }
}

/// Whether it does; where it cannot be read, [`Settings::new`] says so.
pub(super) fn are_enforced() -> bool {
    read_system_file().is_ok_and(|file| file.is_some_and(|file| file.enforced))
}

/// A file that was named must be there; the default ones need not.
fn read_config(named: Option<&Path>, system: Option<ConfigFile>) -> Result<ConfigFile, Failure> {
    if let Some(path) = named {
        return parse_file(path);
    }
    let own = directory_of("XDG_CONFIG_HOME", ".config").map(|path| path.join("config.toml"));
    match own.filter(|path| !is_root() && path.exists()) {
        Some(path) => parse_file(&path),
        None => Ok(system.unwrap_or_default()),
    }
}

fn parse_file(path: &Path) -> Result<ConfigFile, Failure> {
    let wrong = |cause: String| Failure::new(format!("cannot use the settings of {}", path.display())).because(cause);
    let text = read_trusted(path).map_err(wrong)?;
    let file: ConfigFile = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    if file.enforced && path != Path::new(SYSTEM_FILE) {
        return Err(wrong(format!("enforced = true counts in {SYSTEM_FILE} alone")));
    }
    Ok(file)
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
        let failure = parse_file(&path).unwrap_err();
        assert!(failure.message.contains("c.toml") && failure.cause.unwrap().contains("ledgr"));
        std::fs::write(&path, "user = \"u\"\n[run]\ninterval = \"2s\"\nkind = \"generation\"\n").unwrap();
        let file = parse_file(&path).unwrap();
        assert_eq!((file.user.as_deref(), file.run.kind), (Some("u"), Some(JobKind::Generation)));
        assert!(parse_file(&directory.path().join("none.toml")).is_err());
        std::fs::write(&path, "enforced = true\n").unwrap();
        assert!(parse_file(&path).is_err(), "a user's own file enforces nothing");
    }
}
