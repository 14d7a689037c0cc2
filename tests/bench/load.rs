//! Plays sidecars against a ledger service over real sockets, with one report under way on each connection, and compares every acknowledged report with the books: `cargo bench --bench load -- [OPTIONS]`.
//!
//! `--jobs N` sidecars of one account (1000), `--connections N` that they share (one each), `--seconds N` (10), `--db LOCATION` of the service that it starts (a new file
//! beside the build), `--replicas N` of it (1), `--shuffled` reports in another order than that of the opening.

#![allow(clippy::pedantic, clippy::print_stdout, missing_docs, reason = "a program for people, not an interface")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use jobmeter::domain::rating::RateCard;
use jobmeter::domain::units::{Microseconds, Nanocredits};
use jobmeter::domain::usage::Usage;
use jobmeter::ledger::Ledger;
use jobmeter::ledger::attempt_secret::{self, AttemptSecret};
use jobmeter::ledger::location::Location;
use jobmeter::ledger::protocol::{
    AttemptIdentity, Decision, JobKind, Lease, OpenAnswer, OpenRequest, Report, ReportAnswer, Resources,
};
use jobmeter::ledger::views::{Change, PeriodLength, Query, View};
use jobmeter::sys::clock::{Clock, SystemClock};
use jobmeter::sys::process::cpu_us_of;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use uuid::Uuid;

const RESOURCES: Resources = Resources { cpus_ppm: 1_000_000, gpus: 0, gpu_models: BTreeMap::new(), stop_us: 7_000 };

fn option(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

fn number(name: &str, default: u64) -> u64 {
    option(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Service(Child);

impl Service {
    fn cpu_us(&self) -> u64 {
        cpu_us_of(Pid::from_raw(self.0.id().cast_signed()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn serve(db: &str, key_file: &str) -> (Service, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_jobmeter"))
        .args(["serve", "--db", db, "--listen", "127.0.0.1:0", "--admin-key-file", key_file])
        .stderr(Stdio::piped())
        .spawn()
        .expect("jobmeter starts");
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut line).unwrap();
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
    let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    (Service(child), line["url"].as_str().unwrap().trim_start_matches("http://").to_owned())
}

/// One connection, one request at a time.
struct Line {
    stream: TcpStream,
    address: String,
    key: String,
    /// Of the attempts of all its sidecars.
    secret: AttemptSecret,
    buffer: Vec<u8>,
}

impl Line {
    async fn open(address: &str, key: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).ok();
        let (address, key, secret) = (address.to_owned(), key.to_owned(), AttemptSecret::new());
        Self { stream, address, key, secret, buffer: Vec::new() }
    }

    /// Status and body.
    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n{}: {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            self.key,
            attempt_secret::HEADER,
            self.secret.text(),
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await.expect("a request goes out");
        self.buffer.clear();
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let status = head[9..12].parse().unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let total = end + 4 + length.trim().parse::<usize>().unwrap();
                while self.buffer.len() < total {
                    assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the answer was cut");
                }
                return (status, self.buffer[end + 4..total].to_vec());
            }
            assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the service hung up");
        }
    }
}

/// One job, and what its sidecar was told last.
struct Sidecar {
    attempt: Uuid,
    job: String,
    lease: Lease,
    seq: u64,
    cpu_us: u64,
}

impl Sidecar {
    async fn open(line: &mut Line, at: u64) -> Self {
        let (attempt, job) = (Uuid::now_v7(), format!("load-{at}"));
        let identity = AttemptIdentity {
            attempt,
            job: job.clone(),
            task: "0".into(),
            user: "load".into(),
            kind: JobKind::Training,
            name: None,
            labels: BTreeMap::new(),
            command: vec!["burn".into()],
            host: "bench".into(),
        };
        let request = OpenRequest { identity, resources: RESOURCES, limit: None, resume: None, secret: None };
        let body = serde_json::to_vec(&request).unwrap();
        let (status, answer) = line.ask("PUT", &format!("/attempts/{attempt}"), &body).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
        let OpenAnswer::Opened { lease, .. } = serde_json::from_slice(&answer).unwrap() else { panic!() };
        Self { attempt, job, lease, seq: 0, cpu_us: 0 }
    }

    /// Reports another millisecond of CPU time; how long the answer took.
    async fn report(&mut self, line: &mut Line) -> u64 {
        self.seq += 1;
        let report = report(self.attempt, self.seq, self.cpu_us + 1_000, &self.lease);
        let asked_us = SystemClock.boottime_us();
        let path = format!("/attempts/{}/usage", self.attempt);
        let (status, answer) = line.ask("PUT", &path, &serde_json::to_vec(&report).unwrap()).await;
        let took_us = SystemClock.boottime_us() - asked_us;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        self.cpu_us += 1_000;
        let answer: ReportAnswer = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer.seq, self.seq);
        if let Decision::Lease(newer) = answer.decision {
            self.lease = newer;
        }
        took_us
    }
}

/// What the sidecars of a connection were told, when they began and ended, and how long each answer took.
struct Told {
    sidecars: Vec<Sidecar>,
    between_us: (u64, u64),
    took_us: Vec<u64>,
}

/// Opens its jobs, waits until all others have, and reports for one after the other.
async fn connection(address: String, key: String, jobs: Vec<u64>, seconds: u64, all: Arc<Barrier>) -> Told {
    let mut line = Line::open(&address, &key).await;
    let mut sidecars = Vec::new();
    for at in jobs {
        sidecars.push(Sidecar::open(&mut line, at).await);
    }
    if std::env::args().any(|argument| argument == "--shuffled") {
        // The last bytes of a UUIDv7 are random.
        sidecars.sort_by_key(|sidecar| sidecar.attempt.as_u128() % (1 << 32));
    }
    all.wait().await;
    let (begun_us, mut took_us) = (SystemClock.boottime_us(), Vec::new());
    let until_us = begun_us + seconds * 1_000_000;
    'time: loop {
        for sidecar in &mut sidecars {
            if SystemClock.boottime_us() >= until_us {
                break 'time;
            }
            took_us.push(sidecar.report(&mut line).await);
        }
    }
    Told { sidecars, between_us: (begun_us, SystemClock.boottime_us()), took_us }
}

fn report(attempt: Uuid, seq: u64, cpu_us: u64, lease: &Lease) -> Report {
    Report {
        attempt,
        seq,
        usage: Usage { cpu_used_seconds: Microseconds(cpu_us), ..Usage::default() },
        period: lease.period,
        closed: None,
        ceiling_version: lease.version,
        ceiling: lease.ceiling,
        resources: RESOURCES,
        waiting: false,
        secret: None,
    }
}

fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let db = option("--db").unwrap_or_else(|| file("l.db"));
    let replicas: Vec<_> = (0..number("--replicas", 1)).map(|_| serve(&db, &file("key"))).collect();
    let key = std::fs::read_to_string(file("key")).unwrap().trim().to_owned();
    let service = format!("http://{}", replicas[0].1).parse::<Location>().unwrap().with_key(key.parse().ok(), None);
    let mut ledger = service.connect().unwrap();
    ledger.change(&Change::limit("load", None, PeriodLength::Day, "load")).expect("a limit");
    let (jobs, seconds) = (number("--jobs", 1_000), number("--seconds", 10));
    let connections = number("--connections", jobs).clamp(1, jobs);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let all = Arc::new(Barrier::new(usize::try_from(connections + 1).unwrap()));
    let cpu_us = || replicas.iter().map(|(service, _)| service.cpu_us()).sum::<u64>();
    let (told, used_us) = runtime.block_on(async {
        let lines = (0..connections).map(|at| {
            let address = replicas[usize::try_from(at).unwrap() % replicas.len()].1.clone();
            let jobs = (at..jobs).step_by(usize::try_from(connections).unwrap()).collect();
            tokio::spawn(connection(address, key.clone(), jobs, seconds, Arc::clone(&all)))
        });
        let lines: Vec<_> = lines.collect();
        all.wait().await;
        let before_us = cpu_us();
        let mut told: Vec<Told> = Vec::new();
        for line in lines {
            told.push(line.await.expect("a connection"));
        }
        (told, cpu_us() - before_us)
    });
    let begun_us = told.iter().map(|told| told.between_us.0).min().unwrap();
    let passed_us = told.iter().map(|told| told.between_us.1).max().unwrap() - begun_us;
    let mut took_us: Vec<u64> = told.iter().flat_map(|told| told.took_us.iter().copied()).collect();
    took_us.sort_unstable();
    let percentile = |share: f64| took_us[((took_us.len() - 1) as f64 * share) as usize] / 1_000;
    println!(
        "{}, {} replicas, {jobs} jobs: {} reports/s, {} µs CPU of the service each, answers p50 {} ms, p99 {} ms, slowest {} ms",
        db.parse::<Location>().unwrap(),
        replicas.len(),
        took_us.len() as u64 * 1_000_000 / passed_us,
        used_us / took_us.len() as u64,
        percentile(0.5),
        percentile(0.99),
        percentile(1.0)
    );
    for (service, _) in &replicas {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.0.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        println!("  most memory of the service: {}", peak.trim());
    }
    compare(ledger.as_mut(), &told);
}

/// Acknowledged means charged: the books have exactly what each sidecar was told. Where there are very many, one in a hundred
/// is looked at by itself, and all of them together.
fn compare(ledger: &mut dyn Ledger, told: &[Told]) {
    let sidecars: Vec<&Sidecar> = told.iter().flat_map(|told| &told.sidecars).collect();
    let price = |sidecar: &&Sidecar| {
        let usage = Usage { cpu_used_seconds: Microseconds(sidecar.cpu_us), ..Usage::default() };
        RateCard::default().price(&usage).total
    };
    let each = if sidecars.len() > 10_000 { 100 } else { 1 };
    let mut wrong = 0;
    for sidecar in sidecars.iter().step_by(each) {
        let View::Job(Some(job)) = ledger.read(&Query::Job { job: sidecar.job.as_str().into() }).expect("a job") else {
            panic!()
        };
        wrong += u64::from(job.charged.total != price(sidecar));
    }
    let all = sidecars.iter().map(price).fold(Nanocredits::ZERO, Nanocredits::saturating_add);
    let View::Account(account) = ledger.read(&Query::Account { user: "load".into() }).expect("an account") else {
        panic!()
    };
    let View::Verified(found) = ledger.read(&Query::Verify).expect("the books") else { panic!() };
    println!("  {} jobs differ, {} entries, {} problems", wrong, found.entries, found.problems.len());
    found.problems.iter().take(5).for_each(|problem| println!("  {problem}"));
    assert!(wrong == 0 && found.problems.is_empty());
    assert_eq!(account.current, all, "charged, and acknowledged");
}
