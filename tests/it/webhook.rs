//! Alerts to a webhook: a receiver of another language, which checks the signature itself and is away at first.

use std::process::Stdio;

use serde_json::Value;

use crate::service::serve;
use crate::station::{Station, ended, line_of, nano};

/// Prints its port, then each event whose signature is right; answers the first one with 503.
const RECEIVER: &str = r#"
import base64, hashlib, hmac, http.server, json, sys, time
secret = base64.b64decode(sys.argv[1])
seen = 0
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global seen
        seen += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        fresh = abs(time.time() - int(self.headers["webhook-timestamp"])) < 60
        good = hmac.compare_digest(expected, self.headers["webhook-signature"]) and fresh
        self.send_response(503 if seen == 1 else 204 if good else 401)
        self.end_headers()
        event = json.loads(body)
        event["good"] = good and event["id"] == self.headers["webhook-id"]
        event["content"] = self.headers["content-type"]
        print(json.dumps(event), flush=True)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
print(server.server_port, flush=True)
server.serve_forever()
"#;

#[test]
fn whoever_wants_to_know_is_told_that_an_account_runs_out() {
    let station = Station::new();
    let coded = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut receiver = station.program("python3");
    let mut receiver = receiver.args(["-c", RECEIVER, coded]).stdout(Stdio::piped()).spawn().expect("python3");
    let mut told = receiver.stdout.take().unwrap();
    let url = format!("http://127.0.0.1:{}/hook", line_of(&mut told));
    let secret = station.path("secret");
    std::fs::write(&secret, format!("whsec_{coded}\n")).unwrap();
    let hook = ["--webhook", &url, "--webhook-secret-file", secret.to_str().unwrap()];
    let (mut child, at) = serve(&station, "127.0.0.1:0", &hook);
    let call = |arguments: &[&str]| {
        let mut command = station.command(arguments);
        command.env("JOBMETER_LEDGER", &at).env("JOBMETER_KEY", station.path("service.db.admin-key"));
        assert_eq!(command.output().unwrap().status.code(), Some(0), "{arguments:?}");
    };
    call(&["account", "limit", "0.1"]);
    call(&["run", "-q", "--job", "chat", "--", "true"]);
    call(&["tokens", "chat", "17000"]);
    let mut event = || serde_json::from_str::<Value>(&line_of(&mut told)).unwrap();
    let (refused, again) = (event(), event());
    assert_eq!(refused["id"], again["id"], "it is tried again");
    assert_eq!((&again["type"], &again["data"]["percent"]), (&"jobmeter.account.threshold".into(), &80.into()));
    assert_eq!((&again["specversion"], &again["subject"]), (&"1.0".into(), &"tester".into()));
    assert_eq!(again["content"], "application/cloudevents+json; charset=utf-8");
    assert_eq!(nano(&again["data"]["spendable"]), 100_000_000);
    assert!(nano(&again["data"]["spent"]) >= 85_000_000, "{again}");
    call(&["tokens", "chat", "9000"]);
    let last = event();
    assert_eq!((&last["type"], nano(&last["data"]["left"])), (&"jobmeter.account.exhausted".into(), 0));
    assert!([&refused, &again, &last].iter().all(|event| event["good"] == true), "{refused} {again} {last}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(ended(&mut child).code(), Some(0));
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}
