//! Command lines as people type them, run on a machine of their own, and what came of each.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::placeholders::{Keys, OF_CLOCK, Placeholders, host, narrow, without_figures};
use crate::station::{Called, Station};

/// What of the environment of the tests a program needs; all else could change what it says.
const INHERITED: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "LLVM_PROFILE_FILE"];
/// Longer than any name may be; `x*256` in a line.
const LONG: usize = 256;

/// A station, its environment, and what differs there.
pub(crate) struct Machine {
    pub(crate) station: Station,
    variables: Vec<(String, String)>,
    pub(crate) known: Placeholders,
    /// Of JSON.
    pub(crate) keys: Keys,
    /// The numbers that texts for people keep, where all others were measured.
    pub(crate) figures: Option<&'static [&'static str]>,
}

impl Machine {
    /// With an empty ledger of its own.
    pub(crate) fn new() -> Self {
        let station = Station::new();
        let mut known = Placeholders::default();
        known.learn(station.directory.path().to_str().expect("UTF-8"), "<dir>");
        known.learn("x".repeat(LONG), "x*256");
        known.learn(format!(" on {}\n", host()), " on <host>\n");
        let mut machine = Self { station, variables: Vec::new(), known, keys: OF_CLOCK, figures: None };
        machine.write("config.toml", "");
        for (name, file) in [("LEDGER", "ledger.db"), ("SPOOL", "spool"), ("CONFIG", "config.toml")] {
            machine.set(&format!("JOBMETER_{name}"), &machine.path(file));
        }
        machine.set("JOBMETER_USER", "ann");
        // By which the station finds what it has started.
        let directory = machine.station.directory.path().display().to_string();
        machine.set("DIR", &directory);
        machine.set("HOME", &machine.path("home"));
        // No terminal says how wide it is.
        machine.set("COLUMNS", "100");
        machine
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.station.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.station.path(name), text).expect("a file");
    }

    /// From now on, for all programs.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    /// A line such as `NAME=value jobmeter run -- 'two words'`; `$DIR` is the station's directory.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = words(line).into_iter().map(|word| self.expanded(&word)).peekable();
        let mut own = Vec::new();
        while let Some(pair) = words.peek().and_then(|word| variable(word)) {
            own.push(pair);
            words.next();
        }
        let program = match words.next().expect("a program").as_str() {
            "jobmeter" => env!("CARGO_BIN_EXE_jobmeter"),
            "jobmeter-wrapper" => env!("CARGO_BIN_EXE_jobmeter-wrapper"),
            "jobmeter-nvml" => env!("CARGO_BIN_EXE_jobmeter-nvml"),
            other => panic!("{other} is none of ours"),
        };
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(inherited()).envs(self.variables.iter().cloned()).envs(own);
        command.stdin(Stdio::null());
        command
    }

    fn expanded(&self, word: &str) -> String {
        let directory = self.station.directory.path().to_str().expect("UTF-8");
        word.replace("$DIR", directory).replace("x*256", &"x".repeat(LONG))
    }

    pub(crate) fn call(&self, line: &str) -> Called {
        self.command(line).output().expect("it starts").into()
    }

    /// What has to work for a test to make sense.
    pub(crate) fn ok(&self, line: &str) -> Called {
        let called = self.call(line);
        assert_eq!(called.status, 0, "{line}: {called:?}");
        called
    }

    /// The line, and what came of it.
    pub(crate) fn transcript(&self, line: &str) -> String {
        self.told(line, &self.call(line))
    }

    /// What came of a line that was called elsewhere.
    pub(crate) fn told(&self, line: &str, called: &Called) -> String {
        let shown: String = line.chars().flat_map(char::escape_debug).collect();
        let shown = shown.replace("\\'", "'").replace("\\\"", "\"");
        let mut text = format!("$ {shown}\n");
        if called.status != 0 {
            text.push_str(&format!("exit status {}\n", called.status));
        }
        for (name, part) in [("out", self.out(&called.out)), ("err", self.for_people(&called.err))] {
            if !part.is_empty() {
                text.push_str(&format!("--- {name}\n{}\n", part.trim_end_matches('\n')));
            }
        }
        self.known.in_text(&text)
    }

    fn out(&self, text: &str) -> String {
        match serde_json::from_str::<Value>(text) {
            Ok(document) if document.is_object() || document.is_array() => self.known.in_json(&document, self.keys),
            _ => self.for_people(text),
        }
    }

    fn for_people(&self, text: &str) -> String {
        let text = narrow(&self.known.in_text(text));
        self.figures.map_or(text.clone(), |kept| without_figures(&text, kept))
    }

    /// All of the lines.
    pub(crate) fn transcripts(&self, lines: &[&str]) -> String {
        lines.iter().map(|line| self.transcript(line)).collect::<Vec<_>>().join("\n")
    }

    /// Each line for people, and for programs.
    pub(crate) fn both(&self, lines: &[&str]) -> String {
        let json = |line: &&str| line.replacen("jobmeter ", "jobmeter --json ", 1);
        let lines: Vec<String> = lines.iter().flat_map(|line| [(*line).to_owned(), json(line)]).collect();
        self.transcripts(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn inherited() -> Vec<(&'static str, std::ffi::OsString)> {
    INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect()
}

/// `NAME=value`, with a name in capitals.
fn variable(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_name.then(|| (name.to_owned(), value.to_owned()))
}

/// Words are apart by spaces; within single quotes these are part of a word.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
