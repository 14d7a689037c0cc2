//! How many reports a second a store posts durably, handed to it in groups: `cargo bench --bench posting -- [OPTIONS]`.
//!
//! `--jobs N` open attempts of one account (1000), `--group N` reports a transaction (500), `--seconds N` (5),
//! `--shuffled` reports in another order than that of the opening, `--db LOCATION` (a new file beside the build).

#![allow(clippy::pedantic, clippy::print_stdout, missing_docs, reason = "a program for people, not an interface")]

use std::collections::BTreeMap;

use jobmeter::domain::units::Microseconds;
use jobmeter::domain::usage::Usage;
use jobmeter::ledger::Ledger;
use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::book::{Asked, Operation, Outcome};
use jobmeter::ledger::location::Location;
use jobmeter::ledger::protocol::{
    AttemptIdentity, Decision, JobKind, Lease, OpenAnswer, OpenRequest, Report, Resources,
};
use jobmeter::ledger::store::{Store, StoreLedger};
use jobmeter::ledger::views::{Change, PeriodLength, Query, View};
use jobmeter::sys::clock::{Clock, SystemClock};
use uuid::Uuid;

const RESOURCES: Resources = Resources { cpus_ppm: 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: 7_000 };

struct Sidecar {
    attempt: Uuid,
    secret: Option<AttemptSecret>,
    lease: Lease,
    seq: u64,
    cpu_us: u64,
}

fn option(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

fn request(at: u64) -> OpenRequest {
    let identity = AttemptIdentity {
        attempt: Uuid::now_v7(),
        job: format!("bench-{at}"),
        task: "0".into(),
        user: "bench".into(),
        kind: JobKind::Training,
        name: None,
        labels: BTreeMap::new(),
        command: vec!["burn".into()],
        host: "bench".into(),
    };
    OpenRequest { identity, resources: RESOURCES, limit: None, resume: None, secret: Some(AttemptSecret::new()) }
}

fn open<S: Store>(ledger: &mut StoreLedger<S>, requests: &[OpenRequest]) -> Vec<Sidecar> {
    let operations: Vec<Asked<'_>> = requests.iter().map(|request| Operation::Open(request).into()).collect();
    let outcomes = ledger.post(&operations).expect("the store").into_iter();
    let sidecar = |(outcome, request): (Result<Outcome, _>, &OpenRequest)| match outcome.expect("it opens") {
        Outcome::Opened(answer) => match *answer {
            OpenAnswer::Opened { lease, .. } => {
                let (attempt, secret) = (request.identity.attempt, request.secret);
                Sidecar { attempt, secret, lease, seq: 0, cpu_us: 0 }
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    outcomes.zip(requests).map(sidecar).collect()
}

fn post<S: Store>(ledger: &mut StoreLedger<S>, group: &mut [Sidecar]) {
    let reports: Vec<Report> = group
        .iter_mut()
        .map(|sidecar| {
            sidecar.seq += 1;
            sidecar.cpu_us += 1_000;
            Report {
                attempt: sidecar.attempt,
                seq: sidecar.seq,
                usage: Usage { cpu_used_seconds: Microseconds(sidecar.cpu_us), ..Usage::default() },
                period: sidecar.lease.period,
                closed: None,
                ceiling_version: sidecar.lease.version,
                ceiling: sidecar.lease.ceiling,
                resources: RESOURCES,
                waiting: false,
                secret: sidecar.secret,
            }
        })
        .collect();
    let operations: Vec<Asked<'_>> = reports.iter().map(|report| Operation::Report(report).into()).collect();
    for (outcome, sidecar) in ledger.post(&operations).expect("the store").into_iter().zip(group) {
        match outcome.expect("a report is taken") {
            Outcome::Reported { answer, .. } => match answer.decision {
                Decision::Lease(lease) => sidecar.lease = lease,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

fn measure<S: Store>(name: &str, ledger: &mut StoreLedger<S>) {
    let (jobs, group, seconds) = (option("--jobs", 1_000), option("--group", 500), option("--seconds", 5));
    ledger.change(&Change::limit("bench", None, PeriodLength::Day, "bench")).expect("a limit");
    let requests: Vec<OpenRequest> = (0..jobs).map(request).collect();
    let mut sidecars: Vec<Sidecar> = requests.chunks(500).flat_map(|chunk| open(ledger, chunk)).collect();
    if std::env::args().any(|argument| argument == "--shuffled") {
        // The last bytes of a UUIDv7 are random.
        sidecars.sort_by_key(|sidecar| sidecar.attempt.as_u128() % (1 << 32));
    }
    let started_us = SystemClock.boottime_us();
    let (mut reports, mut slowest_us) = (0_u64, 0);
    while SystemClock.boottime_us() < started_us + seconds * 1_000_000 {
        for chunk in sidecars.chunks_mut(usize::try_from(group).unwrap()) {
            let begun_us = SystemClock.boottime_us();
            post(ledger, chunk);
            slowest_us = slowest_us.max(SystemClock.boottime_us() - begun_us);
            reports += chunk.len() as u64;
        }
    }
    let passed_us = SystemClock.boottime_us() - started_us;
    let per_second = reports * 1_000_000 / passed_us;
    println!("{name}: {jobs} jobs, groups of {group}: {per_second} reports/s, slowest group {} ms", slowest_us / 1_000);
    match ledger.read(&Query::Verify).expect("the books") {
        View::Verified(found) => {
            println!("  {} entries, {} problems", found.entries, found.problems.len());
            found.problems.iter().take(5).for_each(|problem| println!("  {problem}"));
        }
        other => panic!("{other:?}"),
    }
}

fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--db");
    let new = directory.path().join("l.db").display().to_string();
    let location = at.and_then(|at| arguments.get(at + 1)).unwrap_or(&new).parse::<Location>().unwrap();
    measure(&location.to_string(), &mut StoreLedger::new(location.store().expect("a ledger")));
}
