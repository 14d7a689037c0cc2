//! Values of the command line, each with an error that says what would be right.

use std::str::FromStr;

use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use nix::sys::signal::Signal;

use crate::domain::printable::is_hidden;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::weight::GpuWeight;
use crate::ledger::views::LimitSince;
use crate::runner::options::{Grace, GraceError, Notice};
use crate::sys::clock::{Clock, SystemClock};

/// A duration that people type: `30s`, `1h 30m`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Whole milliseconds of it; what is longer than can be counted is the longest.
    pub(super) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// So long from now, in seconds since 1970.
    pub(super) fn after_now_s(self) -> i64 {
        let now_s = SystemClock.realtime_us().div_euclid(1_000_000);
        now_s.saturating_add(i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX))
    }
}

/// Credits a period, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Nanocredits>);

const NAME_BYTES_MAX: usize = 255;
const TEXT_BYTES_MAX: usize = 1_000;

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// What a pod's labels may leave empty.
#[derive(Clone, Debug)]
pub(super) struct MaybeName(pub(super) Option<String>);

/// A name, or nothing.
pub(super) fn maybe_name(text: &str) -> Result<MaybeName, String> {
    if text.is_empty() { Ok(MaybeName(None)) } else { name(text).map(|name| MaybeName(Some(name))) }
}

/// As a label of a pod says it, which need not be there.
pub(super) fn maybe_true() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["true", "false", ""]).map(|text| text == "true")
}

/// Names of users, jobs, tasks, keys: what POSIX and mail addresses allow and more, but nothing that a terminal or a log
/// could take for something else.
pub(super) fn name(text: &str) -> Result<String, String> {
    not_empty(text)?;
    if text.trim() != text {
        return Err("it begins or ends with a space".to_owned());
    }
    checked(text, NAME_BYTES_MAX)
}

/// A text for the books, which may be empty.
pub(super) fn text(text: &str) -> Result<String, String> {
    checked(text, TEXT_BYTES_MAX)
}

fn checked(text: &str, bytes_max: usize) -> Result<String, String> {
    if let Some(control) = text.chars().find(|letter| is_hidden(*letter)) {
        return Err(format!("it holds the control character {}", control.escape_unicode()));
    }
    if text.len() > bytes_max {
        return Err(format!("it has {} bytes, at most {bytes_max} are allowed", text.len()));
    }
    Ok(text.to_owned())
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((name(key)?, self::text(value)?))
}

/// Not negative.
pub(super) fn amount(text: &str) -> Result<Nanocredits, String> {
    let amount = Nanocredits::from_str(text).map_err(|error| error.to_string())?;
    if amount < Nanocredits::ZERO { Err("it is negative".to_owned()) } else { Ok(amount) }
}

pub(super) fn amount_above_zero(text: &str) -> Result<Nanocredits, String> {
    match amount(text)? {
        Nanocredits::ZERO => Err("it must be more than 0 credits".to_owned()),
        amount => Ok(amount),
    }
}

pub(super) fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { amount(text).map(|amount| Limit(Some(amount))) }
}

/// From when on a limit counts.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Since {
    /// From this moment on
    Now,
    /// From the next period on
    NextPeriod,
}

impl From<Since> for LimitSince {
    fn from(since: Since) -> Self {
        match since {
            Since::Now => Self::Now,
            Since::NextPeriod => Self::NextPeriod,
        }
    }
}

/// What a flag with two answers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Whether {
    Yes,
    No,
}

/// In parts per million, as the fraction of a [`Microseconds`].
pub(super) fn weight<const MAX: u64>(text: &str) -> Result<Microseconds, String> {
    let weight = Microseconds::from_str(text).map_err(|error| error.to_string())?;
    if weight.0 > MAX * 1_000_000 { Err(format!("a weight is at most {MAX}")) } else { Ok(weight) }
}

/// `PATTERN=WEIGHT`; `none` for no pattern at all.
pub(super) fn gpu_weight(text: &str) -> Result<Option<GpuWeight>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is no PATTERN=WEIGHT, such as '*H200*=3'");
    let (pattern, weight) = text.rsplit_once('=').ok_or_else(wrong)?;
    let pattern = name(pattern)?;
    Ok(Some(GpuWeight { pattern, weight_ppm: self::weight::<1_000>(weight)?.0 }))
}

pub(super) fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is no time: write it with a unit, such as 30s, 250ms or 1h 30m");
    let parsed: jiff::Span = text.parse().map_err(|_| wrong())?;
    let parsed = parsed.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(parsed).map(Span).map_err(|_| wrong())
}

fn span_within(text: &str, min: Duration, max: Duration) -> Result<Span, String> {
    let span = span(text)?;
    if span.0 < min || span.0 > max { Err(format!("it must be from {min:?} to {max:?}")) } else { Ok(span) }
}

pub(super) fn interval(text: &str) -> Result<Span, String> {
    span_within(text, Duration::from_millis(10), Duration::from_mins(1))
}

pub(super) fn hold(text: &str) -> Result<Span, String> {
    span_within(text, Duration::ZERO, Duration::from_hours(1))
}

/// Seconds, or a time with its unit.
pub(super) fn grace(text: &str) -> Result<Grace, GraceError> {
    text.parse().or_else(|error| Grace::of(span(text).map_err(|_| error)?.0))
}

pub(super) fn reserved(text: &str) -> Result<Span, String> {
    span_within(text, Duration::from_millis(1), Duration::from_hours(24))
}

pub(super) fn notice(text: &str) -> Result<Notice, String> {
    let (signal, before) = text.split_once('@').ok_or("a notice is SIGNAL@TIME, such as SIGTERM@30s")?;
    Ok(Notice {
        signal: self::signal(signal)?,
        before: span_within(before, Duration::ZERO, Duration::from_hours(24))?.0,
    })
}

/// `SIGTERM`, `TERM` or `15`.
fn signal(text: &str) -> Result<Signal, String> {
    let by_number = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let named = || Signal::from_str(&format!("SIG{}", text.to_ascii_uppercase().trim_start_matches("SIG"))).ok();
    by_number.or_else(named).ok_or_else(|| format!("{text:?} is no signal: use a name such as SIGTERM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_posix_and_mail_allow() {
        for good in ["alice", "a.b+c@example.org", "job_1-2", "Łukasz", "O'Brien", "o k"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", " a", "a\n", "a\u{1b}[31m", "\u{202e}a", "a\0b"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert!(name(&"x".repeat(256)).is_err());
    }

    #[test]
    fn times_need_units_and_ranges() {
        assert_eq!(span("1h 30m"), Ok(Span(Duration::from_mins(90))));
        assert_eq!(span("250ms"), Ok(Span(Duration::from_millis(250))));
        assert_eq!(span("30 days"), Ok(Span(Duration::from_hours(720))));
        for bad in ["30", "", "-5s", "soon", "NaN"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        for (text, ms) in [("0", 0), ("2", 2_000), ("0.25", 250), ("250ms", 250), ("1min", 60_000), ("24h", 86_400_000)]
        {
            assert_eq!(grace(text), Ok(Grace::For(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "-1", "1e3", "soon", "25h", "86400.1", "18446744073709"] {
            assert!(grace(bad).is_err(), "{bad}");
        }
        assert!(interval("1ms").is_err() && interval("2min").is_err() && hold("0s").is_ok());
    }

    #[test]
    fn notices_name_a_signal_and_a_time() {
        let expected = Notice { signal: Signal::SIGTERM, before: Duration::from_secs(30) };
        for text in ["SIGTERM@30s", "TERM@30s", "15@30s", "term@30s"] {
            assert_eq!(notice(text), Ok(expected), "{text}");
        }
        assert!(notice("SIGTERM").is_err() && notice("NOPE@3s").is_err() && notice("99@3s").is_err());
    }

    #[test]
    fn amounts_are_plain_decimals_in_range() {
        assert_eq!(amount_above_zero("0.5"), Ok(Nanocredits(500_000_000)));
        for bad in ["0", "-1", "NaN", "1e3", "99999999999999"] {
            assert!(amount_above_zero(bad).is_err(), "{bad}");
        }
        assert_eq!(limit("none"), Ok(Limit(None)));
        let weight_ppm = 140_000;
        assert_eq!(gpu_weight("*1g=2*=0.14"), Ok(Some(GpuWeight { pattern: "*1g=2*".to_owned(), weight_ppm })));
        assert_eq!((gpu_weight("none"), gpu_weight("H200").is_err()), (Ok(None), true));
        assert_eq!(weight::<1_000>("0.5"), Ok(Microseconds(500_000)));
        assert!(weight::<1_000>("1001").is_err() && weight::<1>("1.1").is_err() && weight::<1>("1").is_ok());
    }
}
