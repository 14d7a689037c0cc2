//! The one printer: JSON for programs, text for people, errors with what to do.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::ledger::LedgerError;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    style: Style,
}

/// Width and colour of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) width: usize,
    colour: bool,
}

/// What went wrong, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) cause: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) status: u8,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, hint: None, status: 1 }
    }

    pub(super) fn because(mut self, cause: impl ToString) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            LedgerError::Refused(_) | LedgerError::Missing(_) | LedgerError::Unknown(_) | LedgerError::Foreign => {
                failure
            }
            LedgerError::Unavailable(_) | LedgerError::Conflict(_) => {
                Self { status: 75, ..failure }.hint("try again; `jobmeter doctor` looks at the ledger")
            }
            LedgerError::Broken(_) => {
                failure.hint("`jobmeter ledger verify` checks it; `ledger restore` puts a backup back")
            }
        }
    }
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
        Self { json, style: Style { width: width.clamp(40, 160), colour: terminal && !plain } }
    }

    /// Prints the data as JSON, or the text made of it.
    pub(super) fn print<T: Serialize>(
        &self,
        data: &T,
        text: impl FnOnce(&Style) -> String,
    ) -> Result<ExitCode, Failure> {
        let bytes = if self.json {
            let mut bytes = serde_json::to_vec_pretty(data).map_err(|error| Failure::new(error.to_string()))?;
            bytes.push(b'\n');
            bytes
        } else {
            text(&self.style).into_bytes()
        };
        print_bytes(&bytes)
    }
}

/// A reader that has closed its end wants no more: that is no error.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to standard output").because(error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

pub(super) fn print_help(error: &clap::Error) {
    // A closed standard error is no reason to panic.
    error.print().ok();
}

pub(super) fn print_failure(failure: &Failure) {
    let mut text = format!("jobmeter: error: {}\n", failure.message);
    if let Some(cause) = &failure.cause {
        writeln!(text, "  caused by: {cause}").ok();
    }
    if let Some(hint) = &failure.hint {
        writeln!(text, "  hint: {hint}").ok();
    }
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Columns as wide as their widest cell; cells that are numbers stand to the right.
    pub(super) fn table(self, header: &[&str], rows: &[Vec<String>]) -> String {
        let width_of = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain(header.get(at).map(|name| name.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width_of).collect();
        let is_number = |at: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(at)).filter(|cell| !cell.is_empty()).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.bytes().all(|byte| byte.is_ascii_digit() || b".-+".contains(&byte)))
        };
        let right: Vec<bool> = (0..header.len()).map(is_number).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, width), right) in cells.zip(&widths).zip(&right) {
                if *right {
                    write!(line, "{cell:>width$}  ").ok()
                } else {
                    write!(line, "{cell:<width$}  ").ok()
                };
            }
            line.trim_end().to_owned()
        };
        let mut text = self.dim(&line(&mut header.iter().copied()));
        text.push('\n');
        for row in rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let style = Style { width: 80, colour: false };
        let rows = [vec!["a".to_owned(), "1.5".to_owned()], vec!["long".to_owned(), "12.25".to_owned()]];
        assert_eq!(style.table(&["NAME", "N"], &rows), "NAME      N\na       1.5\nlong  12.25\n");
    }
}
