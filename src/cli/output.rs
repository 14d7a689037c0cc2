//! The one printer: JSON for programs, text for people, errors with what to do. Whatever it prints came in part from
//! outside, so what a terminal would obey is written out here, and only here: see [`crate::domain::printable`].

use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::printable::{is_hidden, printable, printable_json, printable_lines};
use crate::ledger::LedgerError;

/// jobmeter itself failed (as with timeout(1) and env(1)).
pub(super) const RUN_FAILED: u8 = 125;

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
    /// Stands for the escape sequences of colours until the text is printed, for those of others are written out. Nobody
    /// can guess it. None without colours.
    mark: Option<Uuid>,
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

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&indented(&self.message))?;
        let parts = [("caused by", &self.cause), ("hint", &self.hint)];
        parts.iter().try_for_each(|(what, text)| match text {
            Some(text) => write!(f, "\n  {what}: {}", indented(text)),
            None => Ok(()),
        })
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            LedgerError::Refused(_)
            | LedgerError::Outdated(_)
            | LedgerError::Missing(_)
            | LedgerError::Unknown(_)
            | LedgerError::Foreign => failure,
            LedgerError::Unavailable(_) | LedgerError::Locked(_) | LedgerError::Conflict(_) => {
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
        let mark = (terminal && !plain).then(Uuid::new_v4);
        Self { json, style: Style { width: width.clamp(40, 160), mark } }
    }

    /// Prints the data as JSON, or the text made of it.
    pub(super) fn print<T: Serialize>(
        &self,
        data: &T,
        text: impl FnOnce(&Style) -> String,
    ) -> Result<ExitCode, Failure> {
        if !self.json {
            return print_bytes(self.style.finished(&text(&self.style)).as_bytes());
        }
        let document = serde_json::to_string_pretty(data).map_err(|error| Failure::new(error.to_string()))?;
        print_bytes(format!("{}\n", printable_json(&document)).as_bytes())
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

/// Help in clap's colours, and an error without: it repeats arguments, whose escape sequences look like clap's own.
pub(super) fn print_help(error: &clap::Error) {
    let told = error.render().to_string();
    let mut of_variables = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JOBMETER"));
    let helps =
        [ErrorKind::DisplayHelp, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::DisplayVersion];
    let is_ours =
        helps.contains(&error.kind()) && !of_variables.any(|(_, value)| value.to_string_lossy().chars().any(is_hidden));
    let printed = if is_ours {
        error.print()
    } else if error.use_stderr() {
        io::stderr().lock().write_all(printable_lines(&told).as_bytes())
    } else {
        io::stdout().lock().write_all(printable_lines(&told).as_bytes())
    };
    // A closed standard error is no reason to panic.
    printed.ok();
}

/// What was printed leaves this process, which may end without its destructors.
pub(super) fn flush() -> std::io::Result<()> {
    std::io::stdout().flush()
}

pub(super) fn print_failure(failure: &Failure) {
    let text = format!("jobmeter: error: {failure}\n");
    // A closed standard error is no reason to panic.
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

pub(super) fn print_warning(text: &str) {
    let text = format!("jobmeter: warning: {text}\n");
    // A closed standard error is no reason to panic.
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// What a service or a file says begins no line of jobmeter's.
fn indented(text: &str) -> String {
    printable_lines(text).replace('\n', "\n    ")
}

/// The same with nothing in its texts that is hidden, line breaks included: for what is laid out in lines.
pub(super) fn cleaned<T: Serialize + DeserializeOwned + Clone>(data: &T) -> T {
    let value = serde_json::to_value(data).map(clean);
    // What does not come back from JSON is still cleaned as a whole, when it is printed.
    value.and_then(serde_json::from_value).unwrap_or_else(|_| data.clone())
}

fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(clean).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (printable(&name).into_owned(), clean(value))).collect()
        }
        other => other,
    }
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        let text = printable(text);
        self.mark.map_or_else(|| text.to_string(), |mark| format!("{mark}{code}m{text}{mark}0m"))
    }

    /// Ready to be printed.
    fn finished(self, text: &str) -> String {
        let Some(mark) = self.mark else { return printable_lines(text).into_owned() };
        let mark = mark.to_string();
        let mut pieces = text.split(&mark);
        let first = pieces.next().unwrap_or_default();
        pieces.fold(printable_lines(first).into_owned(), |text, piece| {
            let (code, painted) = piece.split_once('m').unwrap_or(("0", piece));
            format!("{text}\u{1b}[{code}m{}", printable_lines(painted))
        })
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
        let shown = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
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
        for row in &rows {
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
        let style = Style { width: 80, mark: None };
        let rows = [vec!["a".to_owned(), "1.5".to_owned()], vec!["long".to_owned(), "12.25".to_owned()]];
        assert_eq!(style.table(&["NAME", "N"], &rows), "NAME      N\na       1.5\nlong  12.25\n");
    }

    #[test]
    fn only_our_own_escape_sequences_reach_a_terminal() {
        let style = Style { width: 80, mark: Some(Uuid::new_v4()) };
        let foreign = "\u{1b}[2Jx\u{202e}";
        let text = format!("{} {foreign}\n{}", style.bold(foreign), style.table(&["N"], &[vec!["a\nb".to_owned()]]));
        assert_eq!(
            style.finished(&text),
            "\u{1b}[1m\\u{1b}[2Jx\\u{202e}\u{1b}[0m \\u{1b}[2Jx\\u{202e}\n\u{1b}[2mN\u{1b}[0m\na\\nb\n"
        );
        let plain = Style { width: 80, mark: None };
        assert_eq!(plain.finished(&format!("{}\n", plain.bad(foreign))), "\\u{1b}[2Jx\\u{202e}\n");
    }

    #[test]
    fn data_is_cleaned_to_its_last_text() {
        let data = serde_json::json!({ "a\u{7}": [1.5, "b\nc", { "d": null }] });
        assert_eq!(cleaned(&data), serde_json::json!({ "a\\u{7}": [1.5, "b\\nc", { "d": null }] }));
    }
}
