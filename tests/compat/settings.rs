//! A settings file of an earlier version: each of its keys is read, and means what it meant.

use serde_json::Value;

use crate::fixture::{Version, assert_refused, assert_same, versions};
use crate::service::Service;
use crate::station::{Called, Station};

/// In a directory of its own, with nothing but the file: no variable says what the file says.
fn call(station: &Station, file: &str, arguments: &[&str]) -> Called {
    let mut command = station.command(arguments);
    // What `station` says to every other call.
    for variable in ["JOBMETER_LEDGER", "JOBMETER_SPOOL", "JOBMETER_USER"] {
        command.env_remove(variable);
    }
    let path = station.path("settings.toml");
    std::fs::write(&path, file).unwrap();
    command.env("JOBMETER_CONFIG", path).current_dir(station.directory.path()).output().unwrap().into()
}

fn json(station: &Station, file: &str, arguments: &[&str]) -> Value {
    let called = call(station, file, &[&["--json"], arguments].concat());
    assert_eq!(called.status, 0, "{arguments:?}: {called:?}");
    serde_json::from_str(&called.out).unwrap()
}

fn file(version: &Version) -> String {
    version.text("settings/config.toml")
}

#[test]
fn an_old_file_means_the_same() {
    for version in versions() {
        let (station, file) = (Station::new(), file(&version));
        let called = call(&station, &file, &["account", "limit", "2"]);
        assert_eq!(called.status, 0, "{} {called:?}", version.name);
        let called = call(&station, &file, &["run", "--job", "set-1", "--", "true"]);
        // `quiet`.
        assert!(called.status == 0 && called.err.is_empty(), "{} {called:?}", version.name);
        // `spool_dir` and `ledger`, both of the directory in which it runs.
        let acknowledged = std::fs::read_dir(station.path("settings-spool/acknowledged")).unwrap().count();
        assert_eq!((acknowledged, station.path("ledger.db").exists()), (1, true), "{}", version.name);
        let asked = version.answers("settings/answers.jsonl");
        let of_machine =
            ["highest_cpus_ppm", "highestCpusPpm", "highestRatePerSecond", "guard", "left", "lastsSeconds"];
        assert_same(
            &asked[0].answer,
            &json(&station, &file, &["run", "--dry-run", "--", "true"]),
            &of_machine,
            "--dry-run",
        );
        // `kind`, `user`, `cpu_source`.
        let (old, new) = (&asked[1].answer, &json(&station, &file, &["jobs", "show", "set-1"]));
        for field in ["kind", "user"] {
            assert_eq!(old[field], new[field], "{} {new}", version.name);
        }
        let source = |job: &Value| job["attempts"][0]["receipt"]["cpu"]["source"].clone();
        assert_eq!(source(old), source(new), "{} {new}", version.name);
    }
}

#[test]
fn what_it_says_of_runs_is_done() {
    for version in versions() {
        let (station, file) = (Station::new(), file(&version));
        // `linger`: what the command left behind lives on for longer than the grace of two seconds.
        let left = "(sleep 2.3; touch lingered) & exit 0";
        let called = call(&station, &file, &["run", "--job", "linger-1", "--", "sh", "-c", left]);
        assert!(called.status == 0 && station.path("lingered").exists(), "{} {called:?}", version.name);
        // `notice`: the credits last for less than half a minute, so it may come before Python runs.
        assert_eq!(call(&station, &file, &["--user", "poor", "account", "limit", "0.002"]).status, 0);
        let noticed = "import signal\nwhile not signal.sigtimedwait({15}, 0): pass\nopen('noticed', 'w')";
        let line = ["env", "--block-signal=TERM", "python3", "-c", noticed];
        let line = [&["--user", "poor", "run", "--job", "notice-1", "--"], &line[..]].concat();
        let called = call(&station, &file, &line);
        assert!(station.path("noticed").exists(), "{} {called:?}", version.name);
        let job = json(&station, &file, &["jobs", "show", "notice-1"]);
        assert!(job["attempts"][0]["receipt"]["time"]["notice_sent_at"].is_string(), "{} {job}", version.name);
        // `exhausted_status`.
        assert_eq!(call(&station, &file, &["--user", "broke", "account", "limit", "0"]).status, 0);
        let called = call(&station, &file, &["--user", "broke", "run", "--job", "refused-1", "--", "true"]);
        assert_eq!(called.status, 42, "{} {called:?}", version.name);
    }
}

/// `key_file` is asked for where the ledger is a service.
#[test]
fn its_key_is_shown_to_a_service() {
    for version in versions() {
        let (station, file) = (Station::new(), file(&version));
        let service = Service::start(&station);
        let file = file.replace("\"ledger.db\"", &format!("{:?}", service.url));
        let called = call(&station, &file, &["rates", "show"]);
        assert_refused(&called, &["reader.key"]);
        std::fs::copy(station.path("admin-key"), station.path("reader.key")).unwrap();
        let called = call(&station, &file, &["rates", "show"]);
        assert_eq!(called.status, 0, "{} {called:?}", version.name);
    }
}

/// A value that cannot be is refused by the name of its key: so each key is read, and none was given up.
#[test]
fn each_key_is_read() {
    for version in versions() {
        let (station, file) = (Station::new(), file(&version));
        let lines: Vec<&str> = file.lines().filter(|line| line.contains(" = ")).collect();
        assert!(lines.len() >= 15, "{lines:?}");
        for line in lines {
            let key = line.split(" = ").next().unwrap();
            let wrong = file.replace(line, &format!("{key} = [7]"));
            let called = call(&station, &wrong, &["run", "--dry-run", "--", "true"]);
            // The line is quoted, with the place in it.
            assert!(
                called.status == 125 && called.err.contains(&format!("{key} = [7]")),
                "{} {called:?}",
                version.name
            );
        }
        for (key, wrong) in [("interval", "1h"), ("hold", "2h"), ("notice", "SIGTERM"), ("gpus", "x y")] {
            let line = file.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
            let called =
                call(&station, &file.replace(line, &format!("{key} = {wrong:?}")), &["run", "--dry-run", "--", "true"]);
            assert!(called.status == 125 && called.err.contains(&format!("run.{key}")), "{} {called:?}", version.name);
        }
    }
}

/// A file of a later version is refused by the name of the key that is not known.
#[test]
fn a_newer_file_is_refused() {
    let station = Station::new();
    for (file, key) in [("later = 1\n", "later"), ("[run]\nlater = 1\n", "later")] {
        let called = call(&station, file, &["status"]);
        assert!(called.status == 1 && called.err.contains(&format!("unknown field `{key}`")), "{called:?}");
        assert!(called.err.contains("settings.toml"), "{called:?}");
    }
}
