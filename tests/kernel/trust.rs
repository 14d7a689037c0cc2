//! What root and an enforced machine believe: nothing that a job's user can write.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::station::{Called, Station, ended, line_of, skip, skip_optional};
use crate::{alone, v2};

const NOBODY: u32 = 65_534;

/// A station that other users can enter, with a folder that is nobody's own.
fn with_folder() -> Option<(Station, PathBuf)> {
    v2()?;
    let station = Station::new();
    let folder = station.path("out");
    std::fs::create_dir(&folder).unwrap();
    chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    mode(station.directory.path(), 0o711);
    Some((station, folder))
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn as_nobody(station: &Station, options: &[&str], line: &str) -> Called {
    let mut all = vec!["run", "-q", "--as", "nobody", "--chdir", "/"];
    all.extend(options);
    all.extend(["--", "sh", "-c", line]);
    station.call(&all)
}

#[test]
fn a_receipt_follows_no_link_that_the_jobs_user_made() {
    let Some((station, folder)) = with_folder() else { return };
    let _one = alone();
    let (roots, file) = (station.path("roots"), station.path("roots/r.json"));
    std::fs::create_dir(&roots).unwrap();
    std::fs::write(&file, "untouched").unwrap();
    let receipt = folder.join("r.json");
    let (shown, target) = (receipt.to_str().unwrap(), file.display());
    // The file's place is taken while the job runs, or the folder's, or both had been before.
    let on_the_way = folder.join("way");
    symlink(&roots, &on_the_way).unwrap();
    let called = as_nobody(&station, &["--receipt", on_the_way.join("r.json").to_str().unwrap()], "true");
    assert!(called.err.contains("cannot write the receipt"), "{called:?}");
    let line = format!("ln -s {target} {shown}");
    let called = as_nobody(&station, &["--receipt", shown], &line);
    assert!(called.err.contains("cannot write the receipt"), "{called:?}");
    std::fs::remove_file(&receipt).unwrap();
    let below = folder.join("below");
    std::fs::create_dir(&below).unwrap();
    chown(&below, Some(NOBODY), None).unwrap();
    let line = format!("cd {0} && mv below gone && ln -s {1} below", folder.display(), roots.display());
    assert_eq!(as_nobody(&station, &["--receipt", below.join("r.json").to_str().unwrap()], &line).status, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "untouched");
    let written = std::fs::metadata(folder.join("gone/r.json")).unwrap();
    assert_eq!(written.uid(), NOBODY, "it is written as the user who could have written it");
    // Root's own places stay root's.
    let own = station.path("own.json");
    assert_eq!(as_nobody(&station, &["--receipt", own.to_str().unwrap()], "true").status, 0);
    assert_eq!(std::fs::metadata(own).unwrap().uid(), 0);
    station.verify();
}

#[test]
fn a_job_of_another_user_has_nothing_of_the_meters() {
    let Some((station, _)) = with_folder() else { return };
    let _one = alone();
    let line = "grep -E 'NoNewPrivs|Cap(Inh|Prm|Eff|Amb)' /proc/self/status; ls /proc/self/fd | wc -l; \
                echo \"tty $(ps -o tty= -p $$) $(ps -o sid= -p $$ | tr -d ' ')-$$\"; \
                stat -c '%a %U' $JOBMETER_SOCKET $(dirname $JOBMETER_SOCKET); env | grep -cE '^(NOTIFY_SOCKET|JOBMETER_SPOOL)='";
    let mut command = station.command(&["run", "-q", "--as", "nobody", "--chdir", "/", "--", "sh", "-c", line]);
    command.env("NOTIFY_SOCKET", "/x");
    let called: Called = command.output().unwrap().into();
    let lines: Vec<&str> = called.out.lines().collect();
    assert!(lines[..4].iter().all(|line| line.ends_with("\t0000000000000000")), "{called:?}");
    assert_eq!(lines[4], "NoNewPrivs:\t1");
    // Those three that every program has, and the one by which ls looks.
    assert_eq!(lines[5], "4", "{called:?}");
    let (session, pid) = lines[6].strip_prefix("tty ? ").unwrap().split_once('-').unwrap();
    assert_eq!(session, pid, "it leads a session of its own");
    assert_eq!(lines[7..], ["600 nobody", "711 root", "0"]);
    let line = "grep NoNewPrivs /proc/self/status; echo $JOBMETER_SOCKET";
    let called = as_nobody(&station, &["--allow-new-privileges"], line);
    assert!(called.out.starts_with("NoNewPrivs:\t0\n/"), "{called:?}");
    let socket = called.out.lines().nth(1).unwrap();
    assert!(!Path::new(socket).parent().unwrap().exists(), "the socket's folder goes with the job");
}

#[test]
fn root_acts_upon_no_file_that_others_can_write() {
    let Some((station, folder)) = with_folder() else { return };
    let files = [folder.join("config.toml"), folder.join("key"), folder.join("library.so")];
    for file in &files {
        std::fs::write(file, "").unwrap();
    }
    let [config, key, library] = files.each_ref().map(|file| file.to_str().unwrap());
    let spool = folder.join("spool");
    let service = "http://127.0.0.1:1";
    let database = station.path("x.db");
    for arguments in [
        &["--config", config, "status"][..],
        &["--ledger", service, "--key-file", key, "run", "--", "true"],
        &["run", "--nvml-library", library, "--", "true"],
        &["--spool-dir", spool.to_str().unwrap(), "run", "--", "true"],
        &["serve", "--listen", "127.0.0.1:0", "--db", database.to_str().unwrap(), "--admin-key-file", key],
    ] {
        let called = station.call(arguments);
        assert!(called.status != 0 && called.err.contains("belongs to the user nobody, not to root"), "{called:?}");
    }
    assert!(!spool.exists(), "nothing is made there");
    let (link, target) = (folder.join("l.db"), station.path("made-by-root"));
    symlink(&target, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
    let called = station.call(&["--ledger", link.to_str().unwrap(), "account", "limit", "3"]);
    assert!(called.err.contains("l.db belongs to the user nobody"), "{called:?}");
    assert!(!target.exists());
}

/// The machine's settings, in a view of the machine that has these alone; nothing of the station's own settings is said.
fn in_enforced(station: &Station, line: &str) -> Command {
    let etc = station.path("etc");
    if !etc.exists() {
        assert!(station.program("cp").args(["-a", "/etc"]).arg(&etc).status().unwrap().success());
        std::fs::create_dir_all(etc.join("jobmeter")).unwrap();
    }
    let directory = station.directory.path().display();
    let text = format!(
        "enforced = true\nledger = \"{directory}/out/ledger.db\"\nspool_dir = \"{directory}/out/{{user}}\"\n[run]\nlimit = \"0.5\"\n"
    );
    std::fs::write(etc.join("jobmeter/config.toml"), text).unwrap();
    in_view(station, line)
}

fn in_enforced_as_it_is(station: &Station, line: &str) -> Called {
    in_view(station, line).output().unwrap().into()
}

fn in_view(station: &Station, line: &str) -> Command {
    let directory = station.directory.path().display();
    let as_nobody = format!("exec setpriv --reuid {NOBODY} --clear-groups env HOME=/ TERM=xterm PATH=$PATH {line}");
    let all = format!("mount --bind {directory}/etc /etc && {as_nobody}");
    let mut command = station.program("unshare");
    command.env_clear().env("DIR", station.directory.path()).args(["--mount", "sh", "-c", &all]);
    command
}

fn enforced(station: &Station, line: &str) -> Called {
    in_enforced(station, line).output().unwrap().into()
}

/// Where others can execute it.
fn program(station: &Station) -> PathBuf {
    let path = station.path("jobmeter");
    std::fs::copy(env!("CARGO_BIN_EXE_jobmeter"), &path).unwrap();
    mode(&path, 0o755);
    path
}

#[test]
fn nothing_of_a_user_counts_against_enforced_settings() {
    let Some((station, folder)) = with_folder() else { return };
    let _one = alone();
    let jobmeter = program(&station);
    let (jobmeter, folder) = (jobmeter.display(), folder.display());
    let free = format!("{folder}/free.db");
    for (line, named) in [
        (format!("JOBMETER_LEDGER={free} {jobmeter} run -- true"), "--ledger"),
        (format!("{jobmeter} --ledger {free} run -- true"), "--ledger"),
        (format!("{jobmeter} run --spool-dir {folder}/x -- true"), "--spool-dir"),
        (format!("JOBMETER_SPOOL={folder}/x {jobmeter} spool flush"), "--spool-dir"),
        (format!("JOBMETER_KEY=jm_00_00 {jobmeter} run -- true"), "--key-file"),
        (format!("JOBMETER_USER=bob {jobmeter} run -- true"), "--user"),
        (format!("JOBMETER_CONFIG={folder}/c.toml {jobmeter} run -- true"), "--config"),
        (format!("{jobmeter} run --cpu-source procfs -- true"), "--cpu-source"),
        (format!("{jobmeter} run --nvml-library {folder}/l.so -- true"), "--nvml-library"),
        (format!("{jobmeter} run --gpus none -- true"), "--gpus"),
        (format!("{jobmeter} run --gpu-exclusive -- true"), "--gpu-exclusive"),
        (format!("{jobmeter} run --interval 1min -- true"), "--interval"),
        (format!("{jobmeter} run --hold 1h -- true"), "--hold"),
        (format!("{jobmeter} run --limit 0.6 -- true"), "--limit may be 0.5 credits at most"),
        (format!("{jobmeter} relay --job x --socket {folder}/s --lost-after 1h"), "--"),
        (format!("{jobmeter} relay --job x --socket {folder}/s --grace 1h"), "--"),
    ] {
        let called = enforced(&station, &line);
        let says = called.err.contains(named) && called.err.contains("/etc/jobmeter/config.toml enforces its settings");
        assert!(called.status != 0 && says && called.err.lines().count() == 1, "{line}: {called:?}");
    }
    // What the job is remains the user's to say, and what variables it has.
    let said = "--name n --label a=b --kind generation --limit 0.1 --job mine --notice SIGTERM@1s --grace 1";
    let line = format!(
        "LD_LIBRARY_PATH=/l https_proxy=http://p SSL_CERT_FILE=/c PATH={folder}:$PATH {jobmeter} run -q {said} -- \
         sh -c 'echo $LD_LIBRARY_PATH $https_proxy $SSL_CERT_FILE ${{PATH%%:*}}; tr \"\\0\" \"\\n\" < /proc/self/environ | grep -c COMMAND_ENVIRONMENT'"
    );
    let called = enforced(&station, &line);
    assert_eq!(called.out, format!("/l http://p /c {folder}\n0\n"), "{called:?}");
    // A jobmeter within the job is told the same ledger and user, and may.
    let called = enforced(&station, &format!("{jobmeter} run -q -- {jobmeter} run -q -- echo nested"));
    assert_eq!((called.status, called.out.as_str()), (0, "nested\n"), "{called:?}");
    let ledger = format!("{folder}/ledger.db");
    let jobs = station.json(&["--ledger", &ledger, "--user", "nobody", "jobs", "list"]);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 3, "{jobs}");
    assert!(!Path::new(&free).exists());
}

#[test]
fn nobody_becomes_root_or_blind_to_leave_enforced_settings() {
    let Some((station, folder)) = with_folder() else { return };
    let _one = alone();
    let (jobmeter, free) = (program(&station), folder.join("free.db"));
    let (jobmeter, free) = (jobmeter.display(), free.display());
    // Root of a user namespace is no root; in a chroot the kernel makes none.
    if enforced(&station, "unshare -Ur true").status == 0 {
        let called = enforced(&station, &format!("unshare -Ur {jobmeter} run --ledger {free} -- true"));
        assert!(called.status == 125 && called.err.contains("--ledger"), "{called:?}");
    } else {
        skip_optional("no user namespace can be made here");
    }
    enforced(&station, "true");
    // What may not be read may enforce its settings.
    mode(&station.path("etc/jobmeter/config.toml"), 0o600);
    let called = in_enforced_as_it_is(&station, &format!("{jobmeter} --ledger {free} run -- true"));
    assert!(called.status == 125 && called.err.contains("cannot use the settings of /etc/jobmeter"), "{called:?}");
}

#[test]
fn what_the_user_preloads_is_in_the_command_and_not_in_the_meter() {
    let Some((station, folder)) = with_folder() else { return };
    let _one = alone();
    let (source, library) = (folder.join("empty.c"), folder.join("preloaded.so"));
    std::fs::write(&source, "int nothing;\n").unwrap();
    let built = station.program("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        return skip("gcc is needed");
    }
    let line = format!(
        "LD_PRELOAD={} {} run -q -- sh -c 'echo $PPID; grep -q preloaded /proc/self/maps && echo has it; read word'",
        library.display(),
        program(&station).display()
    );
    let mut child = in_enforced(&station, &line).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = child.stdout.take().unwrap();
    let front: i32 = line_of(&mut told).parse().unwrap();
    assert_eq!(line_of(&mut told), "has it");
    let has_it = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("preloaded");
    let children = std::fs::read_to_string(format!("/proc/{front}/task/{front}/children")).unwrap();
    let mut meters: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    meters.retain(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().starts_with("jobmeter"));
    assert_eq!(meters.len(), 1, "the keeper");
    assert!(!has_it(front) && !has_it(meters[0]));
    drop(child.stdin.take());
    ended(&mut child);
}

#[test]
fn root_writes_into_a_users_folder_as_that_user() {
    let Some((station, folder)) = with_folder() else { return };
    station.ok(&["account", "limit", "1"]);
    let roots = station.path("roots");
    std::fs::create_dir(&roots).unwrap();
    std::fs::write(roots.join("file"), "untouched").unwrap();
    let way = folder.join("way");
    symlink(&roots, &way).unwrap();
    for (arguments, name) in [
        (&["key", "create", "k", "--scope", "read", "--to"][..], "key"),
        (&["ledger", "backup"], "copy.db"),
        (&["install"], "jobmeter-wrapper"),
        (&["man", "--dir"], "jobmeter.1"),
    ] {
        let takes_a_folder = matches!(arguments[0], "install" | "man");
        let told = |place: &Path| {
            let path = if takes_a_folder { place.to_owned() } else { place.join(name) };
            let all: Vec<&str> = arguments.iter().copied().chain([path.to_str().unwrap()]).collect();
            station.call(&all)
        };
        let called = told(&way);
        assert!(called.status != 0 && !roots.join(name).exists(), "{name}: {called:?}");
        symlink(roots.join("file"), folder.join(name)).unwrap();
        told(&folder);
        assert_eq!(std::fs::read_to_string(roots.join("file")).unwrap(), "untouched", "{name}");
        std::fs::remove_file(folder.join(name)).unwrap();
        let called = told(&folder);
        let made = std::fs::symlink_metadata(folder.join(name)).unwrap();
        assert_eq!((called.status, made.uid()), (0, NOBODY), "{name}: {called:?}");
    }
    // A key that could be kept nowhere was not made.
    assert_eq!(station.json(&["key", "list"]).as_array().unwrap().len(), 1);
}

fn spool_file(attempt: &str, header: &Value, record: &Value) -> Vec<u8> {
    let mut bytes = header.to_string().into_bytes();
    bytes.push(b'\n');
    bytes.resize(bytes.len().next_multiple_of(4096), b' ');
    let told = record.to_string();
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = told.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    bytes.extend(format!("{sum:016x} {told}\n").into_bytes());
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    assert!(!attempt.is_empty());
    bytes
}

fn forged(attempt: &str, user: &str, ledger: &str) -> (Value, Value) {
    let identity = json!({"attempt": attempt, "job": "forged", "task": "0", "user": user, "kind": "training", "command": ["true"], "host": "x"});
    let header = json!({"schema": "jobmeter.spool/1", "identity": identity, "ledger": ledger, "boot_id": "another",
        "containment": {"tree": {"front": 1, "start": 0}}, "started_at_us": 0});
    let usage = json!({"cpu_used_seconds": 4000, "cpu_allocated_seconds": 4000, "tokens": 0});
    let day = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400 * 86_400;
    let finish = json!({"attempt": attempt, "usage": usage, "period": day, "reason": "completed", "receipt": {}});
    let record = json!({"seq": 1, "usage": usage, "period": day, "closed": null, "at_us": 0, "rates_version": 1, "finish": finish});
    (header, record)
}

/// A restored ledger takes attempts that it does not know; but not out of a folder whose owner may have made them up.
#[test]
fn a_users_spool_opens_no_attempt_by_roots_hand() {
    let Some((station, folder)) = with_folder() else { return };
    let ledger = folder.join("ledger.db");
    let ledger = ledger.to_str().unwrap();
    station.ok(&["--ledger", ledger, "--user", "victim", "account", "limit", "5"]);
    let copy = station.path("copy.db");
    station.ok(&["--ledger", ledger, "ledger", "backup", copy.to_str().unwrap()]);
    station.ok(&["--ledger", ledger, "ledger", "restore", copy.to_str().unwrap()]);
    let (attempt, spool) = ("01a22868-d60b-7011-9c08-4022d9a557c1", folder.join("spool"));
    std::fs::create_dir(&spool).unwrap();
    let (header, record) = forged(attempt, "victim", ledger);
    let mut files = vec![(spool.join(format!("{attempt}.spool")), spool_file(attempt, &header, &record))];
    // What no jobmeter writes ends nothing but itself.
    for (name, key, value) in [("wide", "slot_bytes", json!(u64::MAX)), ("narrow", "slot_bytes", json!(0))] {
        let (mut header, mut record) = forged(attempt, "victim", ledger);
        header[key] = value;
        record["seq"] = json!(u64::MAX);
        record["finish"] = Value::Null;
        files.push((spool.join(format!("{name}.spool")), spool_file(attempt, &header, &record)));
    }
    let (mut header, record) = forged(attempt, "victim", ledger);
    header["identity"]["job"] = json!("x".repeat(1 << 20));
    files.push((spool.join("long.spool"), spool_file(attempt, &header, &record)));
    for (path, bytes) in &files {
        std::fs::write(path, bytes).unwrap();
        chown(path, Some(NOBODY), None).unwrap();
    }
    for path in [&spool, &folder.join("ledger.db")] {
        chown(path, Some(NOBODY), None).unwrap();
    }
    let called = station.call(&["--ledger", ledger, "--spool-dir", spool.to_str().unwrap(), "spool", "flush"]);
    assert!(called.status == 1 && called.out.contains("0 settled, 4 kept, 0 in use"), "{called:?}");
    assert!(called.out.contains("only its own user's jobmeter can open it again"), "{called:?}");
    let account = station.json(&["--ledger", ledger, "--user", "victim", "status"]);
    assert_eq!(account["left"], account["limit"], "{account}");
}

/// What was acknowledged long ago is purged: in a folder of the user's own, and not where a link leads.
#[test]
fn a_purge_follows_no_link() {
    let Some((station, folder)) = with_folder() else { return };
    let (docs, spool) = (folder.join("docs"), folder.join("spool"));
    for path in [&docs, &spool] {
        std::fs::create_dir(path).unwrap();
        chown(path, Some(NOBODY), None).unwrap();
    }
    let thesis = docs.join("thesis.spool");
    std::fs::write(&thesis, "").unwrap();
    let flush = || {
        let line = "touch -d 2020-01-01 $(realpath $S/../docs)/*; setpriv --reuid 65534 --clear-groups $PROGRAM --spool-dir $S spool flush";
        let program = program(&station);
        let mut shell = station.shell(line);
        let called: Called = shell.env("S", &spool).env("PROGRAM", program).output().unwrap().into();
        assert_eq!(called.status, 0, "{called:?}");
    };
    symlink(&docs, spool.join("acknowledged")).unwrap();
    flush();
    assert!(thesis.exists());
    std::fs::remove_file(spool.join("acknowledged")).unwrap();
    std::fs::rename(&docs, spool.join("acknowledged")).unwrap();
    symlink(spool.join("acknowledged"), &docs).unwrap();
    flush();
    assert!(!spool.join("acknowledged/thesis.spool").exists());
}
