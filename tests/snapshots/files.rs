//! Files that cannot be used, each for its own reason.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use crate::machine::Machine;

/// Ledgers: no database, a database of something else, one of a later version, and one whose sums are wrong.
pub(crate) fn make_ledgers(machine: &Machine) {
    machine.write("text.db", &"not a database, but some words in a file\n".repeat(200));
    let open = |name: &str| Connection::open(machine.path(name)).expect("a database");
    open("other.db").execute_batch("CREATE TABLE t (x)").expect("a table");
    for name in ["newer.db", "wrong.db", "damaged.db"] {
        machine.ok(&format!("JOBMETER_LEDGER=$DIR/{name} jobmeter account grant 1 --why w"));
    }
    open("newer.db").pragma_update(None, "user_version", 99).expect("a version");
    open("wrong.db")
        .execute_batch("UPDATE credit_grant SET charged = 5; UPDATE period SET held = 7")
        .expect("a change");
    open("damaged.db").execute_batch("UPDATE credit_grant SET amount = x'00'").expect("a change");
}

/// Settings that are wrong; their names say how.
pub(crate) fn make_settings(machine: &Machine) {
    for (name, text) in [
        ("unknown-key", "ledgr = \"x\"\n"),
        ("wrong-type", "user = 5\n"),
        ("no-toml", "user = \n"),
        ("unknown-run-key", "[run]\nintervall = \"1s\"\n"),
        ("bad-kind", "[run]\nkind = \"mining\"\n"),
        ("bad-status", "[run]\nexhausted_status = 256\n"),
        ("bad-interval", "[run]\ninterval = \"1ms\"\n"),
        ("bad-hold", "[run]\nhold = \"2h\"\n"),
        ("bad-notice", "[run]\nnotice = \"SIGTERM\"\n"),
        ("bad-gpus", "[run]\ngpus = \"first\"\n"),
        ("bad-secret-names", "[run]\nsecret_names = [\"token\", \"-\"]\n"),
        ("bad-user", "user = \" ann\"\n"),
    ] {
        machine.write(&format!("{name}.toml"), text);
    }
    std::fs::create_dir(machine.station.path("directory")).expect("a directory");
}

/// Files of keys: no key, none there, and a directory.
pub(crate) fn make_keys(machine: &Machine) {
    machine.write("words", "these are some words\n");
    machine.write("short", "whsec_c2hvcnQ=\n");
    machine.write("no-base64", "whsec_***\n");
}

/// What cannot be executed: it may not be, or what should read it is not there.
pub(crate) fn make_programs(machine: &Machine) {
    machine.write("plain", "words\n");
    machine.write("no-interpreter", "#!/nonexistent/interpreter\n");
    let path = machine.station.path("no-interpreter");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}
