//! The log of what runs for long: `serve` and `relay`.

use std::io::{self, Write};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::domain::printable::printable_json;

/// One JSON document a line on standard error; `JOBMETER_LOG=debug` says more.
pub(super) fn start() {
    let asked = std::env::var("JOBMETER_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = asked.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(|| Lines(io::stderr()));
    tracing_subscriber::registry().with(lines).with(levels).init();
}

/// Takes whole lines. People read them in terminals, and paths and names in them came from outside.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(printable_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_is_the_same_and_shows() {
        let mut shown = Vec::new();
        let line = "{\"path\":\"/\u{202e}\u{9b}\u{e0041}\"}\n";
        Lines(&mut shown).write_all(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), "{\"path\":\"/\\u202e\\u009b\\udb40\\udc41\"}\n");
    }
}
