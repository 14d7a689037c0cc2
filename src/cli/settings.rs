//! Flags over environment over file over defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::Global;
use super::config_file::{self, ConfigFile, RunFile, SYSTEM_FILE};
use super::enforced::{Said, same_path};
use super::output::Failure;
use super::values;
use crate::ledger::Ledger;
use crate::ledger::keys::Secret;
use crate::ledger::location::Location;

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

type ReadKey = fn(&Path) -> std::io::Result<String>;

impl Settings {
    /// A verb that asks no service (`serve` itself, which writes the first key) must not fail for want of its key. `said` is
    /// what was said of a job, which enforced settings may refuse.
    pub(super) fn new(global: &Global, asks_ledger: bool, said: Option<&Said<'_>>) -> Result<Self, Failure> {
        // Who may not read it can look at ledgers all the same, but run no job past it.
        let system =
            config_file::of_machine().or_else(|failure| if said.is_some() { Err(failure) } else { Ok(None) })?;
        let by = login_name();
        // By a job's key root acts for its user; by others for itself, who may use that of the service.
        let read: ReadKey =
            if said.is_some() { config_file::read_trusted } else { |path| std::fs::read_to_string(path) };
        match (system, said) {
            (Some(file), Some(said)) if file.enforced => Self::enforced(global, file, by, said),
            (system, said) => Self::chosen(global, asks_ledger.then_some(read), system, by, said.is_some()),
        }
    }

    fn chosen(
        global: &Global,
        read_key: Option<ReadKey>,
        system: Option<ConfigFile>,
        by: String,
        is_of_a_job: bool,
    ) -> Result<Self, Failure> {
        let file = read_config(global.config.as_deref(), system)?;
        let state = state_directory();
        let ledger = global.ledger.clone().or(file.ledger.clone()).map_or_else(
            || state.as_ref().map(|state| Location::File(state.join("ledger.db"))).ok_or_else(no_home),
            |text| location(&text),
        )?;
        let named = global.user.clone().or(file.user.clone());
        let spool_dir = global.spool_dir.clone().map(Ok).or(file.spool_dir(&by)?.map(Ok));
        let spool_dir = spool_dir.unwrap_or_else(|| state.map(|state| state.join("spool")).ok_or_else(no_home))?;
        // Who names a file, and runs no job, means it; and a settings file that names one as well as a key always did.
        let is_named = |ledger_is_named: bool| ledger_is_named && is_file(&ledger);
        let of_settings = file.key_file(&by)?.filter(|_| !is_named(global.ledger.is_some() || file.ledger.is_some()));
        let is_meant = is_named(global.ledger.is_some()) && !is_of_a_job;
        let key = global.key_file.clone().filter(|_| !is_meant).or(of_settings);
        Self::put_together(file, by, named, ledger, key.zip(read_key), spool_dir)
    }

    /// What the user has said may repeat what holds, as a `jobmeter` within a job does.
    fn enforced(global: &Global, file: ConfigFile, by: String, said: &Said<'_>) -> Result<Self, Failure> {
        said.refuse_what_is_not_the_users()?;
        let unset = |name: &str| Failure::new(format!("{SYSTEM_FILE} enforces its settings, but does not say {name}"));
        let state = state_directory().filter(|_| is_root());
        let by_default = |name: &str| state.as_ref().map(|state| state.join(name));
        // The flags of root, and what is the same as in the file, have passed.
        let ledger = match file.ledger.as_deref() {
            Some(ledger) => location(ledger)?,
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
        let given = global.ledger.as_deref().filter(|_| !same_ledger).map(location).transpose()?;
        let ledger = given.unwrap_or(ledger);
        let named = global.user.clone().filter(|given| given != user).or(file.user.clone());
        let spool_dir = global.spool_dir.clone().unwrap_or(spool_dir);
        let key = global.key_file.clone().or(key).filter(|_| !is_file(&ledger));
        Self::put_together(
            file,
            by,
            named,
            ledger,
            key.map(|key| (key, config_file::read_trusted as ReadKey)),
            spool_dir,
        )
    }

    /// Of a task that a scheduler starts: nothing comes from its environment, and its user pays.
    pub(super) fn of_task(file: ConfigFile, user: &str, spool_dir: PathBuf) -> Result<Self, Failure> {
        let ledger = file.ledger.as_deref();
        let ledger = ledger.ok_or_else(|| Failure::new(format!("{SYSTEM_FILE} does not say which ledger")))?;
        let ledger = location(ledger)?;
        let key = file.slurm.key_file.clone().or(file.key_file(user)?).filter(|_| !is_file(&ledger));
        let key = key.map(|key| (key, (|path| std::fs::read_to_string(path)) as ReadKey));
        Ok(Self {
            enforced: true,
            ..Self::put_together(file, user.to_owned(), Some(user.to_owned()), ledger, key, spool_dir)?
        })
    }

    fn put_together(
        file: ConfigFile,
        by: String,
        named: Option<String>,
        ledger: Location,
        key_file: Option<(String, ReadKey)>,
        spool_dir: PathBuf,
    ) -> Result<Self, Failure> {
        let user_is_default = named.is_none();
        let user = named.unwrap_or_else(|| by.clone());
        let user = values::name(&user).map_err(|why| Failure::new(format!("the user name {user:?}: {why}")))?;
        let gone = |error: std::io::Error| Failure::new("the working directory cannot be found").because(error);
        let ledger = match ledger {
            Location::Service(_) => {
                let key = key_file.map(|(text, read)| parse_key(&text, read)).transpose()?;
                ledger.with_key(key, file.proxy)
            }
            Location::File(path) if key_file.is_some() => return Err(key_beside_file(&path)),
            // Other places need none.
            ledger => ledger,
        };
        let (ledger, spool_dir) = (ledger.absolute().map_err(gone)?, std::path::absolute(spool_dir).map_err(gone)?);
        Ok(Self { ledger, spool_dir, user, user_is_default, by, enforced: file.enforced, run: file.run })
    }

    /// For what changes something; a ledger file is made where there is none.
    pub(super) fn connect(&self) -> Result<Box<dyn Ledger>, Failure> {
        Ok(self.ledger.connect()?)
    }

    /// For what only reads, which makes no file.
    pub(super) fn connect_to_read(&self) -> Result<Box<dyn Ledger>, Failure> {
        Ok(self.ledger.connect_to_read()?)
    }

    /// For what is about something that has to be there.
    pub(super) fn connect_existing(&self) -> Result<Box<dyn Ledger>, Failure> {
        Ok(self.ledger.connect_existing()?)
    }
}

/// What is said where a password stands in the command line.
pub(super) const SHOWN_PASSWORD: &str = "everybody on this machine can read the password in the command line: give it by \
                                         PGPASSWORD or a password file (~/.pgpass)";

/// Whether a location with a password is among the arguments, but for those of the command of a job.
pub(super) fn shows_password(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().take_while(|argument| argument != "--").any(|argument| {
        let text = argument.to_string_lossy();
        let value =
            text.strip_prefix("--").and_then(|option| option.split_once('=')).map_or(&*text, |(_, value)| value);
        value.starts_with("postgres") && value.parse::<Location>().is_ok_and(|location| location.has_password())
    })
}

/// Reads what somebody has named.
pub(super) fn location(text: &str) -> Result<Location, Failure> {
    Ok(text.parse::<Location>()?)
}

/// Who has a key means a service. A file that is made instead would let every job run free.
fn key_beside_file(path: &Path) -> Failure {
    Failure::new(format!("a key is for a service, and the ledger is the file {}", path.display()))
        .hint("name the service by --ledger https://…, or unset JOBMETER_KEY")
}

fn no_home() -> Failure {
    Failure::new("neither HOME nor XDG_STATE_HOME is set, so there is no default ledger")
        .hint("name one by --ledger PATH and --spool-dir DIR")
}

fn is_file(ledger: &Location) -> bool {
    matches!(ledger, Location::File(_))
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
fn parse_key(text: &str, read: ReadKey) -> Result<Secret, Failure> {
    if text.is_empty() {
        return Err(Failure::new("JOBMETER_KEY is empty").hint("unset it, or give a key or the file that holds one"));
    }
    if text.starts_with("jm_") {
        return text.parse().map_err(|why: String| Failure::new(format!("the key of JOBMETER_KEY: {why}")));
    }
    let wrong = |cause: String| Failure::new(format!("cannot use the key file {text}")).because(cause);
    let held = read(Path::new(text)).map_err(|error| wrong(error.to_string()))?;
    held.parse().map_err(wrong)
}

/// A file that was named must be there; the default ones need not.
fn read_config(named: Option<&Path>, system: Option<ConfigFile>) -> Result<ConfigFile, Failure> {
    if let Some(path) = named {
        return ConfigFile::read(path);
    }
    let own = directory_of("XDG_CONFIG_HOME", ".config").map(|path| path.join("config.toml"));
    match own.filter(|path| !is_root() && path.exists()) {
        Some(path) => ConfigFile::read(&path),
        None => system.map_or_else(
            // It is there, and not for this user.
            || {
                if Path::new(SYSTEM_FILE).exists() {
                    ConfigFile::read(Path::new(SYSTEM_FILE))
                } else {
                    Ok(ConfigFile::default())
                }
            },
            Ok,
        ),
    }
}

/// The name of the real user; the number where it has no name, as in containers.
fn login_name() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
