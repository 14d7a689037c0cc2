//! What all other verbs say where something is wrong.

use crate::books::served;
use crate::bystanders::answers_always;
use crate::files::{make_keys, make_ledgers};
use crate::kept::keep;
use crate::machine::Machine;

/// A machine on which jobs have run, which cost nothing: what they burned would differ from run to run.
fn used() -> Machine {
    let machine = Machine::new();
    machine.ok("jobmeter rates set --cpu-per-second 0");
    machine.ok("jobmeter run -q --cpu-source procfs --job job-1 -- true");
    machine.ok("jobmeter run -q --cpu-source procfs --job job-2 -- true");
    machine
}

#[test]
fn of_a_call_without_sense() {
    let lines = [
        "jobmeter",
        "jobmeter bogus",
        "jobmeter stats",
        "jobmeter --bogus status",
        "jobmeter jobs",
        "jobmeter jobs bogus",
        "jobmeter status extra",
        "jobmeter top",
        "jobmeter completions tcsh",
        "jobmeter completions",
        "jobmeter man --dir $DIR/none",
        "jobmeter install",
        "jobmeter install $DIR/none",
    ];
    keep("errors-calls", &Machine::new().transcripts(&lines));
}

#[test]
fn of_status_usage_and_jobs() {
    let lines = [
        "jobmeter status --wait-for 0",
        "jobmeter status --wait-for x",
        "jobmeter status --timeout 5s",
        "jobmeter status --wait-for 1 --timeout 5",
        "jobmeter status --wait-for 100 --timeout 0s",
        "jobmeter usage --month 2001-13",
        "jobmeter usage --month today",
        "jobmeter usage --from today",
        "jobmeter usage --from 2001-02-30",
        "jobmeter usage --from 2001-02-02 --to 2001-02-01",
        "jobmeter usage --month 2001-01 --from 2001-01-01",
        "jobmeter usage --by year",
        "jobmeter jobs list --count 0",
        "jobmeter jobs list --count 1001",
        "jobmeter jobs list --kind mining",
        "jobmeter jobs list --before x",
        "jobmeter jobs show",
        "jobmeter jobs show none-such",
        "jobmeter jobs show job-",
        "jobmeter jobs show j",
        "jobmeter jobs stop none-such",
        "jobmeter jobs stop job-1 --why 'a\u{1b}b'",
    ];
    let machine = used();
    keep("errors-reading", &machine.transcripts(&lines));
}

#[test]
fn of_account_tokens_and_rates() {
    let lines = [
        "jobmeter account show --entries -1",
        "jobmeter account show --entries 10001",
        "jobmeter account limit",
        "jobmeter account limit -- -1",
        "jobmeter account limit much",
        "jobmeter account limit 1 --period year",
        "jobmeter account grant 1",
        "jobmeter account grant 0 --why w",
        "jobmeter account grant 1 --why w --expires-in -5s",
        "jobmeter account grant 1 --why w --expires-in 0s",
        "jobmeter account grant 1 --why w --key k",
        "jobmeter account grant 2 --why w --key k",
        "jobmeter account adjust 0 --why w",
        "jobmeter account adjust much --why w",
        "jobmeter account adjust 99999999999 --why w",
        "jobmeter tokens",
        "jobmeter tokens job-1",
        "jobmeter tokens job-1 -5",
        "jobmeter tokens job-1 many",
        "jobmeter tokens none-such 5",
        "jobmeter tokens job-1 18446744073709551615",
        "jobmeter tokens job-1 5 --reserve --for 0s",
        "jobmeter tokens job-1 5 --reserve --for 25h",
        "jobmeter tokens job-1 5 --for 5m",
        "jobmeter tokens job-1 5 --reserve --settle 00000000-0000-7000-8000-000000000001",
        "jobmeter tokens job-1 5 --settle x",
        "jobmeter tokens job-1 5 --settle 00000000-0000-7000-8000-000000000001",
        "jobmeter tokens job-1 5000000 --reserve",
        "jobmeter rates set",
        "jobmeter rates set --cpu-per-second -1",
        "jobmeter rates set --cpu-weight 1001",
        "jobmeter rates set --gpu-model H200",
        "jobmeter rates set --gpu-model H200=x",
        "jobmeter rates set --cpu-basis guessed",
        "jobmeter rates set --gpu-basis guessed",
    ];
    keep("errors-changing", &used().transcripts(&lines));
}

#[test]
fn of_ledger_and_spool() {
    let machine = Machine::new();
    make_ledgers(&machine);
    machine.ok("jobmeter account grant 1 --why w");
    std::fs::create_dir(machine.station.path("broken")).expect("a directory");
    machine.write("broken/empty.spool", "");
    machine.write("broken/words.spool", "these are some words\n");
    machine.write("broken/later.spool", "{\"schema\":\"jobmeter.spool/99\"}\n");
    let lines = [
        "JOBMETER_LEDGER=$DIR/wrong.db jobmeter ledger verify",
        "JOBMETER_LEDGER=$DIR/wrong.db jobmeter --json ledger verify",
        "JOBMETER_LEDGER=$DIR/damaged.db jobmeter ledger verify",
        "JOBMETER_LEDGER=$DIR/damaged.db jobmeter account show",
        "JOBMETER_LEDGER=$DIR/text.db jobmeter status",
        "JOBMETER_LEDGER=$DIR/newer.db jobmeter status",
        "JOBMETER_LEDGER=$DIR/other.db jobmeter status",
        "JOBMETER_LEDGER=postgres://u:secret@127.0.0.1:1/db jobmeter status",
        "jobmeter ledger settle x --why w",
        "jobmeter ledger settle 00000000-0000-7000-8000-000000000001",
        "jobmeter ledger settle 00000000-0000-7000-8000-000000000001 --why w",
        "jobmeter ledger settle 00000000-0000-7000-8000-000000000001 --why w --cpu-seconds -1",
        "JOBMETER_LEDGER=$DIR/none.db jobmeter ledger backup $DIR/copy.db",
        "jobmeter ledger backup $DIR/text.db",
        "jobmeter ledger backup $DIR/none/copy.db",
        "JOBMETER_LEDGER=http://127.0.0.1:1 jobmeter ledger backup $DIR/copy.db",
        "jobmeter ledger restore $DIR/none.db",
        "jobmeter ledger restore $DIR/text.db",
        "jobmeter ledger restore",
        "jobmeter --spool-dir $DIR/text.db spool list",
        "jobmeter --spool-dir $DIR/text.db spool flush",
        "jobmeter --spool-dir $DIR/broken spool list",
        "jobmeter --spool-dir $DIR/broken spool flush",
    ];
    keep("errors-ledger", &machine.transcripts(&lines));
}

#[test]
fn of_serve_and_relay() {
    let mut machine = Machine::new();
    make_ledgers(&machine);
    make_keys(&machine);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = occupied.local_addr().expect("an address").to_string();
    machine.known.learn(address.clone(), "<address>");
    assert_ne!(taken.to_string(), address);
    let in_use = format!("jobmeter serve --db $DIR/l.db --listen {address}");
    let lines = [
        "jobmeter serve --db http://127.0.0.1:1",
        "jobmeter serve --listen nowhere",
        "jobmeter serve --listen 127.0.0.1",
        "jobmeter serve --tls-certificate $DIR/words",
        "jobmeter serve --tls-key $DIR/words",
        "jobmeter serve --webhook https://example.org/hook",
        "jobmeter serve --listen 127.0.0.1:0 --webhook nowhere --webhook-secret-file $DIR/words",
        "jobmeter serve --listen 127.0.0.1:0 --webhook ftp://example.org --webhook-secret-file $DIR/words",
        "jobmeter serve --listen 127.0.0.1:0 --webhook https://example.org --webhook-secret-file $DIR/none",
        "jobmeter serve --listen 127.0.0.1:0 --webhook https://example.org --webhook-secret-file $DIR/short",
        "jobmeter serve --listen 127.0.0.1:0 --webhook https://example.org --webhook-secret-file $DIR/no-base64",
        "jobmeter serve --listen 127.0.0.1:0 --trust-header 'two words'",
        "jobmeter serve --listen 127.0.0.1:0 --db $DIR/text.db",
        "jobmeter serve --listen 127.0.0.1:0 --db postgres://127.0.0.1:1/db",
        "jobmeter serve --listen 127.0.0.1:0 --db $DIR/l.db --admin-key-file $DIR/words",
        "jobmeter serve --listen 127.0.0.1:0 --db $DIR/l.db --admin-key-file $DIR/none/key",
        "jobmeter serve --listen 127.0.0.1:0 --db $DIR/l.db --tls-certificate $DIR/none --tls-key $DIR/none",
        "jobmeter serve --listen 127.0.0.1:0 --db $DIR/l.db --tls-certificate $DIR/words --tls-key $DIR/words",
        &in_use,
        "jobmeter relay",
        "jobmeter relay --job j --lost-after soon",
        "jobmeter relay --job j --task ' t'",
        "jobmeter relay --job j --socket $DIR/none/relay.sock",
        "JOBMETER_SPOOL=/dev/null/spool jobmeter relay --job j --socket $DIR/relay.sock",
    ];
    keep("errors-serving", &machine.transcripts(&lines));
}

/// Keys that may not do that, and services that are none.
#[test]
fn of_a_ledger_service() {
    let mut service = served();
    service.act_as("reader");
    let page = answers_always("200 OK", "text/html", "<p>hello");
    let error = answers_always("500 Internal Server Error", "text/plain", "out of order");
    let gone = answers_always("404 Not Found", "text/plain", "nothing here");
    for address in [&page, &error, &gone] {
        service.machine.known.learn(address.clone(), "<another address>");
    }
    let mut lines: Vec<String> = [
        "JOBMETER_KEY=jm_0123456789ab_00 jobmeter status",
        "jobmeter run -q --cpu-source procfs -- true",
        "jobmeter tokens job-1 5",
        "jobmeter jobs show none-such",
        "jobmeter account grant 1 --why w",
        "jobmeter rates set --cpu-per-second 1",
        "jobmeter key create another",
        "jobmeter key list",
        "jobmeter key revoke 0123456789ab",
        "jobmeter ledger verify",
        "jobmeter ledger restore",
        "jobmeter spool flush",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.extend([page, error, gone].map(|address| format!("JOBMETER_LEDGER=http://{address} jobmeter status")));
    let mut text = service.machine.transcripts(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let ann = service.key("ann").to_owned();
    service.machine.set("JOBMETER_KEY", &ann);
    let of_ann = ["jobmeter --user bob status", "jobmeter jobs list --all", "jobmeter usage --all"];
    text.push_str(&format!("\n{}", service.machine.transcripts(&of_ann)));
    service.machine.unset("JOBMETER_KEY");
    text.push_str(&format!("\n{}", service.machine.transcript("jobmeter status")));
    service.act_as("operator");
    let of_operator =
        ["jobmeter key revoke 0123456789ab", "jobmeter key create k --scope all", "jobmeter key create k --to $DIR"];
    text.push_str(&format!("\n{}", service.machine.transcripts(&of_operator)));
    keep("errors-service", &text);
}

/// What keys of a ledger file are for.
#[test]
fn of_keys_without_a_service() {
    keep("errors-keys", &Machine::new().transcripts(&["jobmeter key create '' ", "jobmeter key create k --scope all"]));
}
