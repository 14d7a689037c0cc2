//! What came from outside: no secret of a command line is kept, and no name does anything to a terminal or a log.

use std::process::{Command, Stdio};

use jobmeter::domain::printable::is_hidden;
use jobmeter::ledger::location::Location;
use jobmeter::ledger::protocol::{AttemptIdentity, Finish, JobKind, OpenAnswer, OpenRequest, Reason, Resources};
use jobmeter::ledger::views::{Change, PeriodLength};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, own_address};
use crate::station::{Called, Station, line_of};

/// Would name the window, turn the text around and hide what follows.
const FOUL: &str = "a\u{1b}]0;owned\u{7}\u{202e}b\u{9b}8m\u{200b}\nZ\u{2066}\u{e0041}";

#[track_caller]
fn clean(text: &str) {
    let left: Vec<char> = text.chars().filter(|letter| is_hidden(*letter) && *letter != '\n').collect();
    assert!(left.is_empty(), "{left:?} is left in {text:?}");
}

/// What foul text became is there, and nothing else of it; no line of it looks like one of jobmeter's.
#[track_caller]
fn shows(called: &Called) {
    clean(&called.out);
    clean(&called.err);
    let all = format!("{}{}", called.out, called.err);
    assert!(all.contains("\\u{202e}") || all.contains("\\u202e"), "{called:?}");
    assert!(!all.lines().any(|line| line.starts_with('Z')), "{called:?}");
}

fn kept_of(station: &Station, job: &str) -> String {
    let attempts = station.json(&["jobs", "show", job])["attempts"].clone();
    let attempt = attempts.as_array().and_then(|attempts| attempts.last()).expect("an attempt");
    assert_eq!(attempt["identity"]["command"], attempt["receipt"]["job"]["command"]);
    let words = attempt["identity"]["command"].as_array().expect("a command");
    words.iter().map(|word| word.as_str().expect("a word")).collect::<Vec<_>>().join(" ")
}

#[test]
fn no_secret_of_a_command_line_is_kept() {
    let station = Station::new();
    let (script, receipt) = ("DB_PASSWORD='Qx7 Qx7' sh -c 'test \"$1\" = Qx7' x \"$2\"", station.path("receipt.json"));
    let line = ["sh", "-c", script, "x", "--token", "Qx7", "--api-key=Qx7", "http://ann:Qx7@h/", "--key-column", "id"];
    let job = ["run", "--job", "j", "--receipt", receipt.to_str().unwrap(), "--"];
    // What runs is not changed.
    let called = station.call(&[&job, &line[..]].concat());
    assert_eq!(called.status, 0, "{called:?}");
    let kept = "sh -c DB_PASSWORD='***' sh -c 'test \"$1\" = Qx7' x \"$2\" x --token *** --api-key=*** http://ann:***@h/ \
                --key-column id";
    assert_eq!(kept_of(&station, "j"), kept);
    assert!(std::fs::read_to_string(&receipt).unwrap().contains("--api-key=***"));
    let secret = ["run", "--job", "k", "-q", "--", "true", "--token", "Qx7-in-no-file"];
    station.ok(&secret);
    let found = station.program("grep").args(["-raF", "Qx7-in-no-file", "."]).current_dir(station.path("")).output();
    assert_eq!(Called::from(found.unwrap()).out, "");
}

#[test]
fn the_names_of_secrets_are_a_setting() {
    let station = Station::new();
    let run = |job: &str, settings: &str| {
        // The station writes an empty one for each command.
        let mut command =
            station.command(&["run", "-q", "--job", job, "--", "true", "--token", "x", "--pin=y", "ftp://a:z@h"]);
        std::fs::write(station.path("config.toml"), settings).unwrap();
        Called::from(command.output().unwrap())
    };
    for (job, settings, kept) in [
        ("default", "", "true --token *** --pin=y ftp://a:***@h"),
        ("own", "[run]\nsecret_names = [\"pin\"]\n", "true --token x --pin=*** ftp://a:***@h"),
        ("none", "[run]\nsecret_names = []\n", "true --token x --pin=y ftp://a:***@h"),
    ] {
        assert_eq!(run(job, settings).status, 0);
        assert_eq!(kept_of(&station, job), kept);
    }
    let called = run("wrong", "[run]\nsecret_names = [\"-\"]\n");
    assert!(called.status == 125 && called.err.contains("run.secret_names"), "{called:?}");
}

#[test]
fn a_process_cannot_name_itself_so_that_a_terminal_obeys() {
    let station = Station::new();
    let name = "\"\\x1b]0;x\\x07\\xe2\\x80\\xae\"";
    let named = format!(
        "import ctypes, time\nctypes.CDLL(None).prctl(15, b{name}, 0, 0, 0)\nuntil = time.time() + 0.5\nwhile time.time() < until: pass"
    );
    let receipt = station.path("receipt.json");
    let run = ["run", "--job", "j", "--interval", "50ms", "--receipt", receipt.to_str().unwrap(), "--label"];
    let called = station.ok(&[&run[..], &["k=v", "--", "python3", "-c", &named]].concat());
    clean(&called.err);
    clean(&std::fs::read_to_string(receipt).unwrap());
    let shown = station.ok(&["jobs", "show", "j"]).out;
    clean(&shown);
    assert!(shown.contains("\\u{1b}]0;x\\u{7}\\u{202e}"), "{shown}");
    clean(&station.ok(&["--json", "jobs", "show", "j"]).out);
}

#[test]
fn errors_repeat_what_they_are_about_so_that_it_shows() {
    let station = Station::new();
    let program = format!("./{FOUL}");
    // Of an argument itself the parser repeats the lines.
    let line = FOUL.replace('\n', "");
    for arguments in [
        &["run", "--", program.as_str()][..],
        &["run", "--kind", &line, "--", "true"],
        &["run", "--receipt", FOUL, "--spool-dir", "/dev/null/\u{202e}", "--", "true"],
        &["--user", &line, "status"],
        &["jobs", "show", FOUL],
        &["jobs", "stop", FOUL, "--why", "w"],
        &["--config", FOUL, "status"],
        &["--ledger", "http://127.0.0.1:1/\u{202e}", "status"],
        &[&line],
    ] {
        let called = station.call(arguments);
        assert_ne!(called.status, 0, "{arguments:?}: {called:?}");
        clean(&called.err);
        assert!(!called.err.contains("\nZ"), "{arguments:?}: {called:?}");
    }
    let mut command = station.command(&["status"]);
    std::fs::write(station.path("config.toml"), "\"\u{202e}\u{200b}\" = 1\n").unwrap();
    shows(&command.output().unwrap().into());
    // Help shows what variables hold.
    shows(&station.command(&["--help"]).env("JOBMETER_SPOOL", FOUL.replace('\n', "")).output().unwrap().into());
}

/// Whose name is made foul afterwards: a ledger takes none, and one of before may have some.
const USER: &str = "foul-user";

fn make_name_foul(path: &std::path::Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("DROP TRIGGER entry_no_update").unwrap();
    for table in ["account", "period", "job", "attempt", "entry", "usage_day", "account_name"] {
        db.execute(&format!("UPDATE {table} SET owner = ?1 WHERE owner = ?2"), [FOUL, USER]).unwrap();
    }
    let escaped = serde_json::to_string(FOUL).unwrap();
    let quoted = format!("\"{USER}\"");
    db.execute("UPDATE identity SET body = replace(body, ?1, ?2)", [&quoted, &escaped]).unwrap();
}

/// A ledger whose every text is foul, as a service of somebody else's might answer.
fn foul_ledger(path: &std::path::Path) {
    let mut ledger = Location::File(path.to_owned()).connect().unwrap();
    let foul = || FOUL.to_owned();
    let identity = AttemptIdentity {
        attempt: Uuid::now_v7(),
        job: format!("jobs{FOUL}"),
        task: foul(),
        user: USER.to_owned(),
        kind: JobKind::Training,
        name: Some(foul()),
        labels: [(foul(), foul())].into(),
        command: vec![foul(), foul()],
        host: foul(),
    };
    let (attempt, job) = (identity.attempt, identity.job.clone());
    let resources = Resources { cpus_ppm: 1_000_000, stop_us: 7_000, ..Resources::default() };
    let opened = ledger.open(&OpenRequest { identity, resources, limit: None, resume: None, secret: None }).unwrap();
    let OpenAnswer::Opened { lease, .. } = opened else { panic!("{opened:?}") };
    let (by, why) = (foul(), foul());
    ledger.change(&Change::StopJob { job: job.into(), by, why }).unwrap();
    let (by, why, key) = (foul(), foul(), "g".to_owned());
    let (user, amount) = ("tester".to_owned(), "5".parse().unwrap());
    ledger.change(&Change::Grant { user, amount, expires_at: None, by, why, key }).unwrap();
    let (by, why) = (foul(), foul());
    let (user, limit, period, since, carry_over) = (USER.to_owned(), None, PeriodLength::Day, None, None);
    ledger.change(&Change::SetLimit { user, limit, period, since, carry_over, by, why }).unwrap();
    let receipt = json!({ "cpu": { "busiest": [{ "pid": 1, "command": FOUL, "cpu_seconds": 1 }] }, "outcome": { "degraded": [FOUL] } });
    let receipt = jobmeter::ledger::receipt_text::ReceiptText::of(&receipt);
    let usage = jobmeter::domain::usage::Usage { cpu_used_seconds: "1".parse().unwrap(), ..Default::default() };
    let period = lease.period;
    ledger
        .finish(&Finish { attempt, usage, period, closed: None, reason: Reason::Failed, receipt, secret: None })
        .unwrap();
    drop(ledger);
    make_name_foul(path);
}

#[test]
fn every_verb_shows_what_a_ledger_says_and_obeys_none_of_it() {
    let station = Station::new();
    foul_ledger(&station.path("ledger.db"));
    for verb in [&["jobs", "list", "--all"][..], &["jobs", "show", "jobs"], &["account", "show"]] {
        shows(&station.call(verb));
        shows(&station.call(&[&["--json"], verb].concat()));
    }
    shows(&station.call(&["jobs", "stop", "jobs"]));
    let job = station.json(&["jobs", "show", "jobs"]);
    assert_eq!(job["name"], FOUL, "programs read what was written");
    assert_eq!(job["attempts"][0]["identity"]["labels"][FOUL], FOUL);
}

#[test]
fn a_service_shows_foul_names_in_pages_and_logs_and_obeys_none() {
    let station = Station::new();
    let db = station.path("ledger\u{202e}\u{9b}.db");
    foul_ledger(&db);
    let key = station.path("service.db.admin-key");
    let arguments = ["serve", "--listen", &own_address(), "--admin-key-file", key.to_str().unwrap(), "--db"];
    let mut command: Command = station.command(&[&arguments[..], &[db.to_str().unwrap()]].concat());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let logged = line_of(child.stderr.as_mut().unwrap());
    let line: Value = serde_json::from_str(&logged).unwrap();
    let service = Service::at(station, child, line["url"].as_str().unwrap().to_owned());
    clean(&logged);
    assert_eq!(line["db"], db.to_str().unwrap());

    shows(&service.call(&service.admin, &["jobs", "list", "--all"]));
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let cookie = crate::sessions::sign_in(&service.url, &service.admin);
    let job = service.json(&["jobs", "list", "--all"])["jobs"][0]["job"].as_str().unwrap().to_owned();
    let encoded: String = job.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for url in [
        &format!("{}/jobs/{encoded}", service.url),
        &format!("{}/jobs", service.url),
        &format!("{}/usage.csv", service.url),
    ] {
        let answer = client.get(url).header("cookie", &cookie).send().unwrap().error_for_status().unwrap();
        let text = answer.text().unwrap().replace('\r', "");
        clean(&text);
        assert!(text.contains("\\u{202e}"), "{url}: {text}");
    }
}
