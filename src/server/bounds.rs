//! What a request may say: bodies are read here, and values out of range go no further.

use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::domain::printable::is_hidden;
use crate::domain::rating::RateCard;
use crate::domain::units::{Microseconds, NANOCREDITS_MAX, Nanocredits};
use crate::domain::usage::Usage;
use crate::domain::weight::GpuWeight;
use crate::ledger::protocol::{AttemptIdentity, ClosedPeriod, Finish, OpenRequest, Report, Resources};
use crate::ledger::views::RESERVED_MAX_MS;

/// No name, reason or key is longer, in bytes.
const TEXT_MAX_BYTES: usize = 1_024;
const PRINCIPAL_MAX_BYTES: usize = 256;
const LABELS_MAX: usize = 64;
const COMMAND_MAX_BYTES: usize = 16 * 1_024;
/// Of sidecars of before: what the books keep of it is shorter.
const RECEIPT_MAX_BYTES: usize = 256 * 1_024;
const GPUS_MAX: usize = 1_024;
/// No attempt could open more of one kind.
const GPUS_COUNTED_MAX: u64 = 1_000_000;
/// 2^53: what every program reads as the same number, in µs 285 years.
const COUNT_MAX: u64 = 1 << 53;
/// A million CPUs.
const CPUS_PPM_MAX: u64 = 1_000_000_000_000;
const STOP_US_MAX: u64 = 600_000_000;
/// The year 2262, where µs end.
const PERIOD_MAX_S: i64 = 9_000_000_000;

type Checked = Result<(), Problem>;

/// A body of JSON.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::malformed(format!("the body: {error}")))
}

fn within(is_so: bool, what: &str, range: &str) -> Checked {
    if is_so { Ok(()) } else { Err(Problem::malformed(format!("{what} must be {range}"))) }
}

/// What may be looked for: whatever it holds but a NUL character, which no database takes.
pub(super) fn lookup(what: &str, text: &str) -> Checked {
    within(text.len() <= TEXT_MAX_BYTES, what, "1024 bytes at most")?;
    within(!text.contains('\0'), what, "without a NUL character")
}

/// A name or a reason.
pub(super) fn text(what: &str, text: &str) -> Checked {
    within(text.len() <= TEXT_MAX_BYTES, what, "1024 bytes at most")?;
    within(!text.chars().any(char::is_control), what, "without control characters")
}

/// A name that is not empty.
pub(super) fn name(what: &str, text: &str) -> Checked {
    within(!text.is_empty(), what, "not empty")?;
    within(text.trim() == text, what, "without spaces at its ends")?;
    // Two names that look the same, or one that turns a line around.
    within(
        !text.chars().any(|letter| is_hidden(letter) && !letter.is_control()),
        what,
        "without characters that cannot be seen",
    )?;
    self::text(what, text)
}

/// Of keys. Indices hold it beside a user and a job.
pub(super) fn principal(principal: &str) -> Checked {
    within(principal.len() <= PRINCIPAL_MAX_BYTES, "principal", "256 bytes at most")?;
    name("principal", principal)
}

/// An amount that people give.
pub(super) fn amount(what: &str, amount: Nanocredits) -> Checked {
    within((-NANOCREDITS_MAX..=NANOCREDITS_MAX).contains(&amount.0), what, "within a thousand million credits")
}

fn count(what: &str, count: u64) -> Checked {
    within(count <= COUNT_MAX, what, "2^53 at most")
}

fn resources(resources: &Resources) -> Checked {
    within(resources.cpus_ppm <= CPUS_PPM_MAX, "cpus_ppm", "a million CPUs at most")?;
    within(resources.gpus <= GPUS_COUNTED_MAX, "gpus", "a million at most")?;
    within(resources.gpu_models.len() <= GPUS_MAX, "gpu_models", "1024 at most")?;
    resources.gpu_models.iter().try_for_each(|(model, count)| {
        text("the name of a GPU", model)?;
        within(*count <= GPUS_COUNTED_MAX, "gpu_models", "a million of each at most")
    })?;
    within(resources.stop_us <= STOP_US_MAX, "stop_us", "600 s at most")
}

/// What was used, and what an operator settles an attempt at.
pub(super) fn usage(usage: &Usage) -> Checked {
    let seconds = |what: &str, time: Microseconds| count(what, time.0);
    seconds("cpu_used_seconds", usage.cpu_used_seconds)?;
    seconds("cpu_allocated_seconds", usage.cpu_allocated_seconds)?;
    count("tokens", usage.tokens)?;
    within(usage.gpus.len() <= GPUS_MAX, "gpus", "1024 at most")?;
    usage.gpus.iter().try_for_each(|(uuid, gpu)| {
        name("the UUID of a GPU", uuid)?;
        text("the name of a GPU", &gpu.model)?;
        seconds("busy_seconds", gpu.busy_seconds)?;
        seconds("allocated_seconds", gpu.allocated_seconds)
    })
}

/// A time, in seconds since 1970.
pub(super) fn at(what: &str, at_s: i64) -> Checked {
    within((0..=PERIOD_MAX_S).contains(&at_s), what, "seconds since 1970, up to the year 2255")
}

fn period(period: i64) -> Checked {
    at("period", period)
}

fn closed(closed: Option<&ClosedPeriod>) -> Checked {
    closed.map_or(Ok(()), |closed| period(closed.period).and_then(|()| usage(&closed.usage)))
}

fn ceiling(version: u64, ceiling: Nanocredits) -> Checked {
    count("ceiling_version", version)?;
    within(ceiling >= Nanocredits::ZERO, "ceiling", "not negative")?;
    amount("ceiling", ceiling)
}

fn identity(identity: &AttemptIdentity) -> Checked {
    let names = [("job", &identity.job), ("task", &identity.task), ("user", &identity.user)];
    names.into_iter().try_for_each(|(what, value)| name(what, value))?;
    text("host", &identity.host)?;
    identity.name.as_deref().map_or(Ok(()), |value| text("name", value))?;
    within(identity.labels.len() <= LABELS_MAX, "labels", "64 at most")?;
    identity.labels.iter().try_for_each(|(key, value)| name("a label", key).and_then(|()| text("a label", value)))?;
    let bytes: usize = identity.command.iter().map(String::len).sum();
    within(bytes <= COMMAND_MAX_BYTES, "command", "16 KiB at most")
}

/// What opens an attempt.
pub(super) fn open(request: &OpenRequest) -> Checked {
    identity(&request.identity)?;
    resources(&request.resources)?;
    if let Some(limit) = request.limit {
        within(limit > Nanocredits::ZERO, "limit", "more than zero")?;
        amount("limit", limit)?;
    }
    request.resume.as_ref().map_or(Ok(()), |resume| {
        count("started_ms_ago", resume.started_ms_ago)?;
        count("rates_version", resume.rates_version)?;
        period(resume.period)?;
        ceiling(resume.ceiling_version, resume.ceiling)
    })
}

/// A report.
pub(super) fn report(report: &Report) -> Checked {
    count("seq", report.seq)?;
    usage(&report.usage)?;
    period(report.period)?;
    closed(report.closed.as_ref())?;
    ceiling(report.ceiling_version, report.ceiling)?;
    resources(&report.resources)
}

/// A last word, with the receipt as the books keep it.
pub(super) fn finish(finish: Finish) -> Result<Finish, Problem> {
    usage(&finish.usage)?;
    period(finish.period)?;
    closed(finish.closed.as_ref())?;
    within(finish.receipt.as_str().len() <= RECEIPT_MAX_BYTES, "receipt", "256 KiB at most")?;
    Ok(Finish { receipt: finish.receipt.shortened(), ..finish })
}

/// A number of tokens.
pub(super) fn tokens(what: &str, tokens: u64) -> Checked {
    count(what, tokens)
}

/// How long a question is kept. A request that takes a minute is given up.
pub(super) fn kept_ms(ms: u64) -> Checked {
    within(ms <= 55_000, "waitMs", "55000 at most")
}

/// How long tokens are reserved for.
pub(super) fn reserved_ms(ms: u64) -> Checked {
    within((1..=RESERVED_MAX_MS).contains(&ms), "lastsMs", "from 1 to 86400000, a day")
}

/// A weight, in parts per million.
pub(super) fn weight(what: &str, weight_ppm: u64) -> Checked {
    within(weight_ppm <= 1_000_000_000, what, "1000 times a million at most")
}

/// Weights by the names of devices.
pub(super) fn gpu_weights(weights: &[GpuWeight]) -> Checked {
    within(weights.len() <= GPUS_MAX, "gpu_weights", "1024 at most")?;
    weights.iter().try_for_each(|of| name("pattern", &of.pattern).and_then(|()| weight("weight_ppm", of.weight_ppm)))
}
/// A rate card.
pub(super) fn rates(rates: &RateCard) -> Result<(), Problem> {
    for (what, price) in [
        ("cpu_per_second", rates.cpu_per_second),
        ("gpu_per_second", rates.gpu_per_second),
        ("per_million_tokens", rates.per_million_tokens),
    ] {
        amount(what, price)?;
    }
    weight("cpu_weight_ppm", rates.cpu_weight_ppm)?;
    weight("gpu_weight_ppm", rates.gpu_weight_ppm)?;
    within(rates.gpu_holding_ppm <= 1_000_000, "gpu_holding_ppm", "1000000 at most")?;
    gpu_weights(&rates.gpu_weights)
}
