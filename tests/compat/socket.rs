//! A job that was written for an earlier version asks its socket.

use serde_json::{Value, json};

use crate::fixture::{assert_same, versions};
use crate::station::Station;

/// Says each line of a file to the socket, with the reservation that was made here in the place of the recorded one.
const ASK: &str = r#"
import json, os, socket
line = socket.socket(socket.AF_UNIX)
line.connect(os.environ["JOBMETER_SOCKET"])
answers = line.makefile()
old = new = ""
with open("answers", "w") as out:
    for record in map(json.loads, open("asks")):
        line.sendall(record["ask"].replace(old or "?", new or "?").encode() + b"\n")
        answer = answers.readline()
        old = record["answer"].get("reservation", old)
        new = json.loads(answer).get("reservation", new)
        out.write(answer)
"#;

#[test]
fn a_job_asks_as_before() {
    for version in versions() {
        let station = Station::new();
        station.ok(&["account", "limit", "5"]);
        std::fs::write(station.path("asks"), version.text("wire/socket.jsonl")).unwrap();
        let mut command = station.command(&["run", "--job", "socket-1", "--", "python3", "-c", ASK]);
        let output = command.current_dir(station.directory.path()).output().unwrap();
        assert!(output.status.success(), "{} {output:?}", version.name);
        let answers = std::fs::read_to_string(station.path("answers")).unwrap();
        let new: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let old = version.lines("wire/socket.jsonl");
        assert_eq!(new.len(), old.len(), "{} {answers}", version.name);
        for (record, answer) in old.iter().zip(&new) {
            // How much is left is of the account; the sentence of an error is for people.
            let of_now = ["left", "limit", "burn_per_second", "reservation", "error"];
            assert_same(&record["answer"], answer, &of_now, &format!("{} {}", version.name, record["ask"]));
        }
        // Once each: 1200 and 300 tokens.
        let job = station.json(&["jobs", "show", "socket-1"]);
        assert_eq!(job["tokens"], json!(1_500), "{} {job}", version.name);
        station.verify();
    }
}
