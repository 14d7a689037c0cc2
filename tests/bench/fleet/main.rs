//! Plays a fleet of sidecars against a ledger service, each with its two connections, in one process: `tests/load/run.py` drives it.
//!
//! `fleet fill --db LOCATION --accounts N --days N --silent N --of ACCOUNT` gives a ledger a past.
//!
//! `fleet play --address HOST:PORT --key-file FILE --admin-key-file FILE --sidecars N --accounts N` opens an attempt for each, over
//! `--over` seconds, and then takes a command a line, each answered by a line of JSON:
//!
//! - `mark`: what has happened since the last one.
//! - `stop N`: stops so many jobs, one after the other, as an operator does; what has happened is in the next mark.
//! - `finish`: all of them end; what each account burned, and what was charged for it.

#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a program for people, not an interface"
)]

mod line;
mod sidecar;
mod tally;
mod year;

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jobmeter::ledger::location::Location;
use jobmeter::sys::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};

use self::line::{Line, Service};
use self::sidecar::{Fleet, Sidecar};
use self::tally::Tally;

/// Sidecars that open, or say their last word, at the same time.
const OPENINGS: usize = 64;
/// A stop that is not told by then is not told.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Operators do not stop jobs faster.
const STOP_EACH: Duration = Duration::from_millis(200);
/// What has not ended by then does not end.
const END_MAX: Duration = Duration::from_mins(5);
const LIMIT: u64 = 1_000_000;

fn option(name: &str) -> String {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name).unwrap_or_else(|| panic!("{name} is missing"));
    arguments[at + 1].clone()
}

fn number(name: &str) -> u64 {
    option(name).parse().unwrap_or_else(|_| panic!("{name} takes a number"))
}

fn key(name: &str) -> String {
    std::fs::read_to_string(option(name)).expect("a file with a key").trim().to_owned()
}

/// A job, and when an operator stopped it.
type Running = (String, Arc<AtomicU64>);

struct Play {
    fleet: Arc<Fleet>,
    operator: Service,
    running: Vec<Running>,
    end: watch::Sender<bool>,
}

async fn until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

impl Play {
    /// Comes and goes: a connection on which nothing is said for a minute is hung up on.
    fn operator(&self) -> Line {
        Line::new(&self.operator, None)
    }

    /// Half of the accounts have no limit, the others one that is far away.
    async fn set_limits(&mut self, accounts: u64) {
        let mut operator = self.operator();
        for at in 0..accounts {
            let limit = (at % 2 == 1).then_some(LIMIT);
            let body = serde_json::to_vec(&json!({ "limit": limit, "period": "month", "why": "" })).unwrap_or_default();
            let answer = operator.ask("PUT", &format!("/users/load-{at}/limit"), &body).await;
            let (status, body) = answer.expect("the service answers");
            assert!(status < 300, "{status} {}", String::from_utf8_lossy(&body));
        }
    }

    async fn open(&mut self, sidecars: u64, accounts: u64, over: Duration) {
        let each = over / u32::try_from(sidecars.max(1)).unwrap_or(u32::MAX);
        let begin = tokio::time::Instant::now();
        for at in 0..sidecars {
            let (job, account) = (format!("load-{at}"), format!("load-{}", at % accounts));
            let stopped_us = Arc::new(AtomicU64::new(0));
            self.running.push((job.clone(), Arc::clone(&stopped_us)));
            let fleet = Arc::clone(&self.fleet);
            tokio::spawn(async move {
                if let Some((sidecar, line)) = Sidecar::open(fleet, job, account, stopped_us).await {
                    sidecar.live(line).await;
                }
            });
            tokio::time::sleep_until(begin + each * u32::try_from(at + 1).unwrap_or(u32::MAX)).await;
        }
        let fleet = Arc::clone(&self.fleet);
        let all = until(END_MAX, move || fleet.tally.opened_in_all() == sidecars).await;
        assert!(all, "not all attempts could be opened: {}", self.fleet.tally.take());
    }

    async fn stop(&mut self, count: usize) -> Value {
        let mut failed = Vec::new();
        for _ in 0..count {
            let Some((job, stopped_us)) = self.running.pop() else { break };
            let told = self.fleet.tally.stops_told();
            stopped_us.store(SystemClock.boottime_us(), Ordering::Relaxed);
            let answer = self.operator().ask("POST", &format!("/jobs/{job}/stop"), br#"{"why":"load"}"#).await;
            let fleet = Arc::clone(&self.fleet);
            let is_told = until(STOP_MAX, move || fleet.tally.stops_told() > told).await;
            if !is_told || !matches!(answer, Ok((200, _))) {
                failed.push(format!("{job}: told {is_told}, answered {answer:?}"));
            }
            tokio::time::sleep(STOP_EACH).await;
        }
        json!({ "not_told": failed })
    }

    async fn finish(&mut self) -> Value {
        self.end.send_replace(true);
        let fleet = Arc::clone(&self.fleet);
        let all = until(END_MAX, move || fleet.tally.is_settled()).await;
        json!({ "all": all, "accounts": self.fleet.tally.sums() })
    }

    async fn obey(&mut self, command: &str) -> Value {
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["mark"] => self.fleet.tally.take(),
            ["stop", count] => self.stop(count.parse().expect("a number of jobs")).await,
            ["finish"] => self.finish().await,
            _ => json!({ "error": format!("there is no command {command:?}") }),
        }
    }
}

async fn play() {
    let address = option("--address");
    let (end, ending) = watch::channel(false);
    let service = Service { address: address.clone(), key: key("--key-file") };
    let operator = Service { address, key: key("--admin-key-file") };
    let fleet = Fleet { service, tally: Tally::default(), ending, openings: Semaphore::new(OPENINGS) };
    let mut play = Play { fleet: Arc::new(fleet), operator, running: Vec::new(), end };
    let (sidecars, accounts) = (number("--sidecars"), number("--accounts"));
    play.set_limits(accounts).await;
    play.open(sidecars, accounts, Duration::from_secs(number("--over"))).await;
    println!("{}", play.fleet.tally.take());
    let (sender, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(command) = commands.recv().await {
        println!("{}", play.obey(&command).await);
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("fill") => {
            let location: Location = option("--db").parse().expect("a ledger");
            let days = i64::try_from(number("--days")).expect("some days");
            year::fill(&location, number("--accounts"), days, number("--silent"), &option("--of"));
        }
        Some("play") => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop").block_on(play());
        }
        _ => panic!("fleet fill or fleet play"),
    }
}
