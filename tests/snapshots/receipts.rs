//! Jobs that really ran, each to another end: what is said on standard error, the receipt file, and what is shown of them.
//!
//! They are metered by `procfs`, which every machine has for every user, and what was measured is left out.

use std::process::{Child, Stdio};

use jobmeter::domain::units::Nanocredits;
use serde_json::Value;

use crate::kept::keep;
use crate::machine::Machine;
use crate::placeholders::{Keys, OF_CLOCK, OF_METER};
use crate::station::{Called, all_processes, ended, line_of};

/// Some milliseconds of work.
const WORK: &str = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";

/// What was measured is left out, but for these numbers.
fn machine(kept: &'static [&'static str]) -> Machine {
    let mut machine = Machine::new();
    (machine.keys, machine.figures) = (OF_METER, Some(kept));
    machine
}

/// The options that every job here has.
fn run(options: &str, command: &str) -> String {
    let options = format!("{options} --receipt $DIR/receipt.json");
    format!("jobmeter run --cpu-source procfs --gpus none {} -- {command}", options.trim())
}

/// Where a machine has GPUs, the helper has looked at them: that is not what these receipts are about.
fn without_gpus(receipt: &mut Value) {
    let gpu = receipt["gpu"].as_object_mut().expect("a part of GPUs");
    if gpu["devices"].as_array().is_some_and(Vec::is_empty) {
        ["driver", "declared_by", "notes", "readings"].iter().for_each(|key| drop(gpu.remove(*key)));
        gpu.insert("source".to_owned(), "<source>".into());
    }
}

/// A machine whose CPUs are busy may stop a job a little past its ceiling, when all up to there is charged.
fn without_the_last_slice(said: &str) -> String {
    said.replace("; <n> credits burned past the ceiling were not charged", "")
        .replace("<limit> credits charged", "<n> credits charged")
}

/// The call, what it said, and its receipt.
fn told(machine: &Machine, line: &str, called: &Called, keys: Keys) -> String {
    let said = without_the_last_slice(&machine.told(line, called));
    let path = machine.station.path("receipt.json");
    let Ok(receipt) = std::fs::read(&path) else { return format!("{said}(no receipt)\n") };
    std::fs::remove_file(path).expect("a file");
    let mut receipt = serde_json::from_slice(&receipt).expect("JSON");
    without_gpus(&mut receipt);
    format!("{said}--- receipt\n{}\n", machine.known.in_json(&receipt, keys))
}

fn ran(machine: &Machine, line: &str) -> String {
    told(machine, line, &machine.call(line), OF_METER)
}

#[test]
fn of_jobs_that_ended_by_themselves() {
    let machine = machine(&["5"]);
    let completed =
        run("--job completed --name iris --label team=a --label stage= --kind generation", &format!("sh -c '{WORK}'"));
    keep("receipt-completed", &ran(&machine, &completed));
    keep("receipt-failed", &ran(&machine, &run("--job failed --task 7", &format!("sh -c '{WORK}; exit 3'"))));
    keep("receipt-signalled", &ran(&machine, &run("--job signalled", &format!("sh -c '{WORK}; kill -TERM $$'"))));
    keep("receipt-not-found", &ran(&machine, &run("--job not-found --quiet", "/nonexistent/command")));
    keep("output-run-quiet", &machine.transcript("jobmeter run --cpu-source procfs --quiet -- true"));
    // The data for programs is the receipt: standard output is the command's.
    let json = format!("jobmeter --json run --cpu-source procfs --job json -- sh -c '{WORK}; echo out'");
    keep("output-run-json", &machine.transcript(&json));
}

/// Nothing was measured: every figure of the receipt is known.
#[test]
fn of_a_job_that_was_refused() {
    let machine = machine(&["0"]);
    machine.ok("jobmeter account limit 0");
    let line = run("--job refused", "touch $DIR/never");
    keep("receipt-refused", &told(&machine, &line, &machine.call(&line), OF_CLOCK));
    assert!(!machine.station.path("never").exists());
}

#[test]
fn of_a_job_that_reached_its_own_limit() {
    let machine = machine(&["5"]);
    let line = run("--job limited --limit 0.0002", "sh -c 'while :; do :; done'");
    keep("receipt-job-limit", &ran(&machine, &line));
    // Of a job whose limit is used up nothing is started any more.
    let line = run("--job limited --limit 0.00000001", "touch $DIR/never");
    keep("receipt-job-limit-refused", &told(&machine, &line, &machine.call(&line), OF_CLOCK));
}

/// With a little more than a job needs to begin, which depends on how many CPUs there are; all of them burn.
#[test]
fn of_a_job_that_used_up_the_account() {
    let mut machine = machine(&[]);
    let found = machine.ok("jobmeter --json run --cpu-source procfs --gpus none --dry-run -- true").out;
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let nano = |name: &str| crate::station::nano(&found[name]);
    let limit = Nanocredits(nano("guard") * 2 + nano("highestRatePerSecond") * 6 / 10);
    machine.ok(&format!("jobmeter account limit {limit}"));
    machine.known.learn(limit.for_people(), "<limit>");
    let burn = "sh -c 'for i in $(seq $(nproc)); do while :; do :; done & done; wait'";
    keep("receipt-credits-exhausted", &ran(&machine, &run("--job exhausted --exhausted-status 42", burn)));
}

/// A job that waits until its standard input ends; it runs once this has returned.
fn started(machine: &Machine, line: &str) -> Child {
    let mut command = machine.command(line);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    assert_eq!(line_of(child.stdout.as_mut().expect("piped")), "ready");
    child
}

fn called(mut child: Child) -> Called {
    ended(&mut child);
    child.wait_with_output().expect("an end").into()
}

#[test]
fn of_a_job_that_runs_and_is_stopped() {
    let machine = machine(&["0", "1", "5"]);
    let line = run("--job long --name night", "sh -c 'echo ready; read word'");
    let child = started(&machine, &line);
    let text = machine.both(&[
        "jobmeter jobs list --running",
        "jobmeter jobs show long",
        "jobmeter spool list",
        "jobmeter spool flush",
    ]);
    keep("output-running", &without_samples(&text));
    machine.ok("jobmeter jobs stop long --why 'wrong data'");
    keep("receipt-operator-stop", &told(&machine, &line, &called(child), OF_METER));
}

/// Without what is there or not, as samples happened to come.
fn without_samples(text: &str) -> String {
    let is_sample = |line: &&str| {
        let is_one = |name: &str| line.starts_with(&format!("  {name} "));
        is_one("burn") || is_one("busiest") || line.contains("highest column")
    };
    text.lines().filter(|line| !is_sample(line)).map(|line| format!("{line}\n")).collect()
}

/// As long as the ledger knows that something may still report what it burned before a restore, nothing new begins.
#[test]
fn of_a_job_that_waits() {
    let machine = machine(&[]);
    machine.ok("jobmeter run -q --cpu-source procfs -- true");
    machine.ok("jobmeter ledger backup $DIR/copy.db");
    machine.ok("jobmeter ledger restore $DIR/copy.db");
    let mut command = machine.command("jobmeter run -q --cpu-source procfs -- true");
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let line = line_of(child.stderr.as_mut().expect("piped"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("a signal");
    ended(&mut child);
    keep("output-run-waits", &crate::placeholders::without_figures(&line, &[]));
}

/// The name of a process, and its parent.
fn name_and_parent(pid: i32) -> Option<(String, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    Some((head.split_once('(')?.1.to_owned(), rest.split(' ').nth(1)?.parse().ok()?))
}

/// Of the two children of jobmeter, the one that is not the command.
fn keeper_of(front: i32) -> i32 {
    let is_keeper = |pid: &i32| name_and_parent(*pid).is_some_and(|(name, parent)| parent == front && name != "sh");
    all_processes().into_iter().find(is_keeper).expect("a keeper")
}

#[test]
fn of_a_job_whose_meter_was_killed() {
    let machine = machine(&[]);
    let line = run("--job lost", "sh -c 'echo ready; read word'");
    let child = started(&machine, &line);
    let keeper = nix::unistd::Pid::from_raw(keeper_of(i32::try_from(child.id()).expect("a pid")));
    nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGKILL).expect("a signal");
    let text = told(&machine, &line, &called(child), OF_METER);
    let shown = machine.ok("jobmeter --json jobs show lost").out;
    let mut receipt = serde_json::from_str::<Value>(&shown).expect("JSON")["attempts"][0]["receipt"].clone();
    without_gpus(&mut receipt);
    let receipt = machine.known.in_json(&receipt, OF_METER);
    keep("receipt-meter-lost", &format!("{text}--- receipt in the ledger\n{receipt}\n"));
}

/// Shown of a real job: the lines that its meter fills in.
#[test]
fn of_what_is_shown_of_a_job() {
    let machine = machine(&["0", "30000", "1"]);
    machine.ok(&run("--job shown --quiet", &format!("sh -c '{WORK}'")));
    keep("output-jobs-show-measured", &without_samples(&machine.transcript("jobmeter jobs show shown")));
}

/// What depends on the machine: how many CPUs it has, and how long a tick of its kernel is.
#[test]
fn of_a_dry_run() {
    let mut machine = machine(&["5", "0.00025", "0.0025"]);
    machine.keys = &[
        ("highestCpusPpm", "<parts per million>"),
        ("highestRatePerSecond", "<credits>"),
        ("guard", "<credits>"),
        ("lastsSeconds", "<seconds>"),
    ];
    keep("output-run-dry", &machine.both(&["jobmeter run --dry-run --cpu-source procfs --gpus none -- true"]));
}

/// Whether each check succeeds, and why not, is the machine's.
#[test]
fn of_doctor() {
    const OWN: [&str; 2] = ["ledger", "spool"];
    let machine = machine(&[]);
    let line = "jobmeter doctor --nvml-library $DIR/libnvidia-ml.so.1";
    let mut found: Value = serde_json::from_str(&machine.ok(&line.replacen(' ', " --json ", 1)).out).expect("JSON");
    for check in found["checks"].as_array_mut().expect("checks") {
        if !OWN.contains(&check["what"].as_str().expect("a name")) {
            check["found"] = "<found>".into();
            check["works"] = "<works>".into();
        }
    }
    let text = machine.ok(line).out;
    let lines = text.lines().map(|line| {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let what = rest.get(..17).unwrap_or_default().trim_end();
        match mark {
            "✓" | "✗" | "·" if OWN.contains(&what) => line.to_owned(),
            "✓" | "✗" | "·" => format!("<mark> {what:<17} <found>"),
            _ => {
                line.split_once("metered by ").map_or(line.to_owned(), |(said, _)| format!("{said}metered by <source>"))
            }
        }
    });
    let text = machine.known.in_text(&lines.collect::<Vec<_>>().join("\n"));
    keep("output-doctor", &format!("{text}\n--- JSON\n{}\n", machine.known.in_json(&found, &[])));
}
