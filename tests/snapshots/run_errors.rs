//! What `run`, `attach` and the wrapper say where something is wrong before or at the start.

use crate::files::{make_keys, make_ledgers, make_programs, make_settings};
use crate::kept::keep;
use crate::machine::Machine;

#[test]
fn of_the_options_of_run() {
    let lines = [
        "jobmeter run",
        "jobmeter run --",
        "PATH=/usr/bin:/bin jobmeter run -q --cpu-source procfs --bogus -- true",
        "jobmeter run --limit",
        "jobmeter run --limit=-1 -- true",
        "jobmeter run --limit= -- true",
        "jobmeter run --limit 0 -- true",
        "jobmeter run --limit NaN -- true",
        "jobmeter run --limit 1e3 -- true",
        "jobmeter run --limit 0.0000000001 -- true",
        "jobmeter run --limit 99999999999 -- true",
        "jobmeter run --interval 0s -- true",
        "jobmeter run --interval 2min -- true",
        "jobmeter run --interval soon -- true",
        "jobmeter run --hold 5 -- true",
        "jobmeter run --hold 2h -- true",
        "jobmeter run --notice SIGTERM -- true",
        "jobmeter run --notice SIGNOPE@3s -- true",
        "jobmeter run --notice TERM@25h -- true",
        "jobmeter run --kind mining -- true",
        "jobmeter run --cpu-source magic -- true",
        "jobmeter run --gpus first -- true",
        "jobmeter run --label novalue -- true",
        "jobmeter run --label =value -- true",
        "jobmeter run --job '' -- true",
        "jobmeter run --job ' j' -- true",
        "jobmeter run --job 'a\u{1b}[31mb' -- true",
        "jobmeter run --job 'a\u{202e}b' -- true",
        "jobmeter run --job x*256 -- true",
        "jobmeter run --exhausted-status 256 -- true",
        "jobmeter run --quiet --quiet -- true",
        "jobmeter --user '' run -- true",
        "JOBMETER_USER= jobmeter run -- true",
        "jobmeter --ledger '' run -- true",
    ];
    keep("errors-run-options", &Machine::new().transcripts(&lines));
}

/// Jobs are metered by `procfs`, which every machine has.
#[test]
fn of_the_command_that_is_run() {
    let machine = Machine::new();
    make_programs(&machine);
    // What they burned would differ from run to run.
    machine.ok("jobmeter rates set --cpu-per-second 0");
    machine.ok("jobmeter run -q --cpu-source procfs --job stopped -- true");
    machine.ok("jobmeter jobs stop stopped");
    let lines = [
        // Whether a directory of the inherited PATH may be searched is the machine's.
        "PATH=/usr/bin:/bin jobmeter run -q --cpu-source procfs -- no-such-command-here",
        "PATH=/usr/bin:/bin jobmeter run -q --cpu-source procfs -- ''",
        "jobmeter run -q --cpu-source procfs -- /nonexistent/x",
        "jobmeter run -q --cpu-source procfs -- $DIR/plain",
        "jobmeter run -q --cpu-source procfs -- $DIR",
        "jobmeter run -q --cpu-source procfs -- $DIR/no-interpreter",
        "jobmeter run -q --cpu-source procfs --receipt $DIR/none/r.json -- true",
        "jobmeter run -q --cpu-source procfs --job stopped -- true",
    ];
    keep("errors-run-command", &machine.transcripts(&lines));
}

#[test]
fn of_the_ledger_of_a_run() {
    let machine = Machine::new();
    make_ledgers(&machine);
    let lines = [
        "JOBMETER_LEDGER=$DIR/text.db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=$DIR/other.db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=$DIR/newer.db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=$DIR/damaged.db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=$DIR jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=/dev/null/ledger.db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=postgres://u:secret@127.0.0.1:1/db jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=postgres://[ jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=http://u:secret@127.0.0.1:1/ jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=http:// jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_LEDGER=https://a:b:c jobmeter run -q --cpu-source procfs -- true",
        "JOBMETER_SPOOL=/dev/null/spool jobmeter run -q --cpu-source procfs -- true",
    ];
    keep("errors-run-ledger", &machine.transcripts(&lines));
}

#[test]
fn of_the_settings_file() {
    let machine = Machine::new();
    make_settings(&machine);
    let names = [
        "unknown-key",
        "wrong-type",
        "no-toml",
        "unknown-run-key",
        "bad-kind",
        "bad-status",
        "bad-interval",
        "bad-hold",
        "bad-notice",
        "bad-gpus",
        "bad-secret-names",
        "missing",
    ];
    let mut lines: Vec<String> =
        names.iter().map(|name| format!("jobmeter --config $DIR/{name}.toml run -- true")).collect();
    lines.push("jobmeter --config $DIR/directory run -- true".to_owned());
    let mut text = machine.transcripts(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    // Nobody else names one.
    let mut nameless = machine;
    nameless.unset("JOBMETER_USER");
    text.push('\n');
    text.push_str(&nameless.transcript("jobmeter --config $DIR/bad-user.toml run -- true"));
    keep("errors-settings", &text);
}

#[test]
fn of_the_key() {
    let mut machine = Machine::new();
    make_keys(&machine);
    machine.set("JOBMETER_LEDGER", "http://127.0.0.1:1");
    let lines = [
        "JOBMETER_KEY= jobmeter status",
        "JOBMETER_KEY=jm_zz jobmeter status",
        "JOBMETER_KEY=$DIR/none jobmeter status",
        "JOBMETER_KEY=$DIR jobmeter status",
        "JOBMETER_KEY=$DIR/words jobmeter status",
        "jobmeter --key-file $DIR/words run -- true",
    ];
    keep("errors-key", &machine.transcripts(&lines));
}

#[test]
fn of_attach() {
    let lines = [
        "jobmeter attach --pid 0",
        "jobmeter attach --pid x",
        "jobmeter attach --pid 1 --cgroup /sys/fs/cgroup",
        "jobmeter attach --pid 2147483647",
        "jobmeter attach --wait soon",
        "jobmeter attach --cgroup $DIR",
        "jobmeter attach --cgroup /nonexistent/group",
        "jobmeter attach --task ' t'",
    ];
    keep("errors-attach", &Machine::new().transcripts(&lines));
}

#[test]
fn of_the_wrapper_and_the_helper_for_gpus() {
    let machine = Machine::new();
    let lines = [
        "jobmeter-wrapper",
        "jobmeter-wrapper --help",
        "jobmeter-wrapper --relay",
        "jobmeter-wrapper --wait x -- true",
        "jobmeter-wrapper --unknown -- true",
        "jobmeter-wrapper -- true",
    ];
    keep("errors-wrapper", &machine.transcripts(&lines));
}
