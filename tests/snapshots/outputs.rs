//! What every verb prints, for people and for programs, of books whose every figure is known.

use crate::attempts::id;
use crate::books::{forget_lease, full, served};
use crate::kept::keep;
use crate::machine::Machine;

/// The day of UTC: a test that ran over its end sees books of two days.
fn today() -> i64 {
    let now = jobmeter::sys::clock::Clock::realtime_us(&jobmeter::sys::clock::SystemClock);
    now.div_euclid(86_400_000_000)
}

/// What `made` makes within one day.
pub(crate) fn within_a_day<T>(made: impl Fn() -> T) -> T {
    loop {
        let day = today();
        let text = made();
        if today() == day {
            return text;
        }
    }
}

/// This month, as the options of `usage` name it.
pub(crate) fn month() -> String {
    let now = jobmeter::sys::clock::Clock::realtime_us(&jobmeter::sys::clock::SystemClock);
    let now = jiff::Timestamp::from_microsecond(now).expect("a time").to_string();
    now.chars().take(7).collect()
}

#[test]
fn of_status() {
    let text = within_a_day(|| {
        let service = full();
        service.machine.both(&[
            "jobmeter status",
            "jobmeter status --short",
            "jobmeter --user bob status",
            "jobmeter --user bob status --short",
            "jobmeter --user poor status",
            "jobmeter --user silent status",
            "jobmeter --user nobody status",
            "jobmeter status --wait-for 1",
        ])
    });
    keep("output-status", &text);
}

#[test]
fn of_jobs() {
    let text = within_a_day(|| {
        let service = full();
        service.machine.both(&[
            "jobmeter jobs list",
            "jobmeter jobs list --all",
            "jobmeter --user bob jobs list --kind generation",
            "jobmeter jobs list --all --count 1",
            "jobmeter --user nobody jobs list",
            "jobmeter jobs stop chat-1",
            "jobmeter jobs stop chat-1 --why again",
        ])
    });
    keep("output-jobs-list", &text);
    let text = within_a_day(|| {
        let lines = ["train-1", "gen-1", "gen-2", "chat-1", "quiet-1"].map(|job| format!("jobmeter jobs show {job}"));
        let text = full().machine.both(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        // Whether a column of it is seen depends on how long the attempt took.
        let is_chart = |line: &&str| line.starts_with("  burn ") || line.contains("highest column");
        text.lines().filter(|line| !is_chart(line)).collect::<Vec<_>>().join("\n")
    });
    keep("output-jobs-show", &text);
}

#[test]
fn of_usage() {
    let text = within_a_day(|| {
        let (service, month) = (full(), month());
        let of_month = format!("jobmeter usage --month {month}");
        service.machine.both(&[
            "jobmeter usage",
            &of_month,
            "jobmeter usage --all",
            "jobmeter usage --all --by day",
            "jobmeter usage --month 2001-02",
        ])
    });
    keep("output-usage", &text);
}

#[test]
fn of_account_and_rates() {
    let text = within_a_day(|| {
        let service = full();
        service.machine.both(&[
            "jobmeter account show",
            "jobmeter account show --entries 0",
            "jobmeter --user bob account show",
            "jobmeter --user nobody account show",
            "jobmeter account limit 20 --why promoted",
            "jobmeter account limit 2 --period month",
            "jobmeter account limit none",
            "jobmeter account grant 1 --why gift --key k1",
            "jobmeter account adjust -0.5 --why fee --key k2",
        ])
    });
    keep("output-account", &text);
    let text = within_a_day(|| {
        let lines = [
            "jobmeter rates show",
            "jobmeter rates set --cpu-per-second 0.0003 --gpu-model '*H200*=3' --gpu-model '*MIG 1g.*=0.14'",
            "jobmeter rates set --gpu-model none --cpu-basis allocated --gpu-basis allocated",
        ];
        full().machine.both(&lines)
    });
    keep("output-rates", &text);
}

#[test]
fn of_tokens() {
    let text = within_a_day(|| {
        let service = full();
        let mut text = service.machine.both(&[
            "jobmeter tokens chat-1 1200 --key t1",
            "jobmeter tokens chat-1 8000 --reserve --for 5m --key r1",
            "jobmeter tokens chat-1 9000000 --reserve",
        ]);
        let again = service.machine.ok("jobmeter --json tokens chat-1 8000 --reserve --for 5m --key r1").out;
        let answer: serde_json::Value = serde_json::from_str(&again).expect("JSON");
        let reservation = answer["reserved"]["reservation"].as_str().expect("an id").to_owned();
        let settle = format!("jobmeter tokens chat-1 1200 --settle {reservation} --key s1");
        text.push_str(&format!("\n{}", service.machine.both(&[&settle])));
        // More than is left.
        text.push_str(&format!("\n{}", service.machine.both(&["jobmeter tokens chat-1 9000000 --key t2"])));
        text
    });
    keep("output-tokens", &text);
}

#[test]
fn of_keys() {
    let text = within_a_day(|| {
        let service = served();
        let id = service.key("node").split('_').nth(1).expect("an id");
        let revoke = format!("jobmeter key revoke {id}");
        service.machine.both(&[
            "jobmeter key list",
            "jobmeter key create node-8",
            "jobmeter key create node-9 --to $DIR/node-9.key",
            &revoke,
        ])
    });
    keep("output-key", &text);
}

#[test]
fn of_the_ledger() {
    let text = within_a_day(|| {
        let mut service = full();
        let settle = format!("jobmeter ledger settle {} --cpu-seconds 2 --why 'the node was lost'", id(6));
        let mut text = service.machine.both(&["jobmeter ledger verify", &settle]);
        crate::attempts::opening(&service, 7, "quiet-2", "silent", serde_json::json!({}));
        forget_lease(&service, 7);
        let settle = format!("jobmeter ledger settle {} --why 'all that it held'", id(7));
        text.push_str(&format!("\n{}", service.machine.both(&[&settle])));
        let file = service.machine.path("service.db");
        service.machine.set("JOBMETER_LEDGER", &file);
        let lines = ["jobmeter ledger backup $DIR/copy.db", "jobmeter ledger restore $DIR/copy.db --why test"];
        text.push_str(&format!("\n{}", service.machine.transcripts(&lines)));
        let lines = [
            "jobmeter --json ledger backup $DIR/copy-2.db",
            "jobmeter --json ledger restore $DIR/copy-2.db --why test",
        ];
        text.push_str(&format!("\n{}", service.machine.transcripts(&lines)));
        text
    });
    keep("output-ledger", &text);
}

/// A spool file of a job that has ended, as if the ledger had not taken it.
#[test]
fn of_the_spool() {
    let mut machine = Machine::new();
    machine.keys = crate::placeholders::OF_METER;
    machine.figures = Some(&["0", "1"]);
    machine.ok("jobmeter run -q --cpu-source procfs --job kept -- true");
    let acknowledged = std::fs::read_dir(machine.path("spool/acknowledged")).expect("a directory");
    let file = acknowledged.flatten().map(|file| file.path()).find(|path| path.extension().is_some()).expect("a file");
    let restored = machine.station.path("spool").join(file.file_name().expect("a name"));
    std::fs::copy(&file, &restored).expect("a copy");
    let lines = [
        "jobmeter spool list",
        "jobmeter --json spool list",
        "jobmeter spool flush",
        "jobmeter --json spool flush",
        "jobmeter spool list",
        "jobmeter spool flush --acknowledged",
        "jobmeter --json spool flush --acknowledged",
    ];
    keep("output-spool", &machine.transcripts(&lines));
}

#[test]
fn of_install_and_man() {
    let machine = Machine::new();
    for name in ["bin", "man"] {
        std::fs::create_dir(machine.station.path(name)).expect("a directory");
    }
    keep("output-install", &machine.both(&["jobmeter install $DIR/bin", "jobmeter man --dir $DIR/man"]));
}
