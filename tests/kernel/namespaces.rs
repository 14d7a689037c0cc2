//! Whose `/proc`, whose process ids: jobs in PID namespaces that see an outer `/proc`, numbers that mean two processes, and a
//! `/proc` that hides processes or is not there. What is harmful if it fails stays within a PID namespace that stands for a machine.

use crate::station::{Called, Station, micros, nano, skip_optional};
use crate::{Around, alone, v2};

/// Runs bash lines as the first process of a PID namespace that is a machine of its own to them, with its own `/proc`.
fn machine(station: &Station, lines: &str) -> Called {
    let called = station
        .program("unshare")
        .args(["-mpf", "--mount-proc", "--kill-child", "bash", "-c", lines])
        .env("WATCHED", WATCHED)
        .env("AS_NOBODY", "setpriv --reuid 65534 --regid 65534 --clear-groups")
        .output();
    called.expect("unshare starts").into()
}

/// Waits until the shell words in it hold, as long as nothing hangs.
const AWAIT: &str =
    "await() { for _ in $(seq 6000); do eval \"$1\" && return; sleep 0.01; done; echo \"never: $1\"; exit 9; }";

/// Bystanders under the numbers of `$1`, made by clone3 with `set_tid`. Each blocks all signals; at the end of standard input it
/// says of each whether something came to it, or what else was done to it. Run as python3 -c "$WATCHED" FIRST LAST.
const WATCHED: &str = "
import ctypes, os, platform, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def clone_as(pid):
    number = (ctypes.c_int * 1)(pid)
    fields = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(number), 1, 0)
    return libc.syscall(435, fields, 88)
def place(pid):
    return open(f'/proc/{pid}/cgroup').read()
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
made = {}
for pid in range(int(sys.argv[1]), int(sys.argv[2])):
    child = clone_as(pid)
    if child == 0:
        while True: signal.pause()
    if child > 0: made[child] = place(child)
print('made', len(made), flush=True)
sys.stdin.read()
harmed = []
for pid, before in made.items():
    ended, _ = os.waitpid(pid, os.WNOHANG)
    if ended: harmed.append(f'{pid} was killed')
    else:
        status = dict(line.split(':', 1) for line in open(f'/proc/{pid}/status'))
        came = int(status['SigPnd'], 16) | int(status['ShdPnd'], 16)
        if came: harmed.append(f'{pid} got {came:x}')
        if status['State'].split()[0] not in 'SR': harmed.append(f'{pid} is {status[\"State\"]}')
        if place(pid) != before: harmed.append(f'{pid} was moved')
        os.kill(pid, signal.SIGKILL)
print('harmed:', *harmed, flush=True)
";

#[test]
fn a_job_that_sees_the_outer_processes_is_metered_and_harms_none() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let lines = "
        sleep 3600 & one=$!; setsid sleep 3600 & two=$!
        for source in cgroup2 perf procfs; do
            unshare -pf --kill-child $JOBMETER run -q --job in-$source --cpu-source $source -- sh -c \
                'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; (exit 0); exit 3'
            echo status $?
        done
        $JOBMETER spool list; kill -0 $one && kill -0 $two && echo both live";
    let called = machine(&station, lines);
    let expected = format!("{}nothing is in the spool\nboth live\n", "status 3\n".repeat(3));
    assert_eq!(called.out, expected, "{called:?}");
    for source in ["cgroup2", "perf", "procfs"] {
        let receipt = station.receipt(&format!("in-{source}"));
        assert!(micros(&receipt["cpu"]["total_seconds"]) > 0, "{receipt}");
        assert_eq!(receipt["outcome"]["tamper"], "possible", "{receipt}");
    }
    station.verify();
}

/// Without the right to mount one, what needs no processes goes on, and says what it does not see.
#[test]
fn where_no_proc_of_its_own_can_be_had_only_groups_meter() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let lines = "
        sleep 3600 & one=$!
        inner='unshare -pf --kill-child setpriv --bounding-set -sys_admin --inh-caps -sys_admin'
        for source in cgroup2 perf procfs enclosing; do
            $inner $JOBMETER run -q --job in-$source --cpu-source $source --limit 0.0001 -- sh -c 'while :; do :; done'
            echo $source $?
        done
        $inner $JOBMETER --json doctor > $DIR/doctor
        kill -0 $one && echo lives";
    let called = machine(&station, lines);
    assert_eq!(called.out, "cgroup2 75\nperf 125\nprocfs 125\nenclosing 125\nlives\n", "{called:?}");
    assert_eq!(called.err.matches("start it with `unshare --mount-proc`").count(), 2, "{called:?}");
    let receipt = station.receipt("in-cgroup2").to_string();
    assert!(receipt.contains("what leaves the job's group is not seen"), "{receipt}");
    let doctor: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(station.path("doctor")).unwrap()).unwrap();
    let works = |what: &str| {
        doctor["checks"].as_array().unwrap().iter().find(|check| check["what"] == what).unwrap()["works"].clone()
    };
    let found = ["processes", "source cgroup2", "source perf", "source procfs"].map(works);
    assert_eq!(found, [false, true, false, false].map(serde_json::Value::from), "{doctor}");
    station.verify();
}

/// A record of another namespace is settled as it stands.
#[test]
fn what_was_lost_in_another_namespace_is_settled_and_nobody_killed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let lines = format!(
        "{AWAIT}
        sleep 3600 & one=$!; setsid sleep 3600 & two=$!
        lose() {{
            unshare -pf --kill-child $JOBMETER run -q --job $1 --interval 20ms --cpu-source procfs -- sh -c \
                \"touch $DIR/$1; while :; do :; done\" & outer=$!
            await \"[ -e $DIR/$1 ]\"
            # The keeper first: else it may see the front die, and write down how the job ended before it dies itself.
            front=$(pgrep -P $outer); kill -KILL $(pgrep -P $front jobmeter) $front; wait $outer
        }}
        lose a; $JOBMETER spool flush; echo status $?
        lose b; $JOBMETER run -- true; echo status $?; await '! pgrep -c jobmeter > /dev/null'
        kill -0 $one && kill -0 $two && echo both live"
    );
    let called = machine(&station, &lines);
    assert!(called.out.contains("settled as it was last written: its job ran in another PID namespace"), "{called:?}");
    assert!(called.err.contains("the meter of job b was lost in another PID namespace"), "{called:?}");
    assert!(called.out.ends_with("status 0\nboth live\n"), "{called:?}");
    assert_eq!(called.out.matches("status 0").count(), 2, "{called:?}");
    for job in ["a", "b"] {
        assert_eq!(station.json(&["jobs", "show", job])["state"], "ended");
    }
    station.verify();
}

#[test]
fn an_ordinary_user_with_a_namespace_of_his_own_keeps_his_processes() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let lines = format!(
        "{AWAIT}
        chown 65534:65534 $DIR; export HOME=$DIR
        $AS_NOBODY sleep 3600 & one=$!
        await '[ \"$(stat -c %u /proc/'$one')\" = 65534 ]'
        $AS_NOBODY unshare -Urpf --kill-child $JOBMETER run -q --job in -- sh -c 'exit 3'; echo status $?
        $AS_NOBODY unshare -Urpf --kill-child $JOBMETER run -q --job lost -- \
            sh -c 'touch $DIR/began; while :; do :; done' & outer=$!
        await '[ -e $DIR/began ]'
        kill -KILL $(pgrep -P $outer); wait $outer
        $AS_NOBODY $JOBMETER run -q --job next -- sh -c 'exit 4'; echo status $?
        await '$AS_NOBODY $JOBMETER spool list | grep -q \"nothing is in the spool\"'
        kill -0 $one && echo lives"
    );
    let called = machine(&station, &lines);
    assert_eq!(called.out, "status 3\nstatus 4\nlives\n", "{called:?}");
}

/// Each number of the job means a bystander as well, in the outer namespace. `COLLISIONS` says how many runs.
#[test]
fn numbers_that_mean_two_processes_harm_neither() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let runs = std::env::var("COLLISIONS").unwrap_or_else(|_| "8".to_owned());
    let lines = format!(
        "{AWAIT}
        mkfifo $DIR/line; python3 -c \"$WATCHED\" 2 120 < $DIR/line > $DIR/found & exec 9> $DIR/line
        await 'grep -q made $DIR/found'
        for run in $(seq {runs}); do
            case $((run % 4)) in
                0) how='--cpu-source cgroup2';; 1) how='--cpu-source procfs --limit 0.00001';;
                2) how='--cpu-source cgroup2 --limit 0.00001 --interval 10ms';; 3) how='--cpu-source perf --limit 0.00001';;
            esac
            timeout 60 unshare -pf --kill-child $JOBMETER run -q --job j $how -- bash -c \
                '(setsid sleep 100 & sleep 100 &) & for i in 1 2 3 4; do (:); done; [ $1 = 0 ] || while :; do :; done' \
                x $((run % 4)) 9>&- || [ $? = 75 ] || echo \"run $run failed\"
        done
        exec 9>&-; await 'grep -q harmed $DIR/found'; cat $DIR/found; pgrep -c sleep"
    );
    let called = machine(&station, &lines);
    if called.out.starts_with("made 0") {
        return skip_optional("clone3 sets no process id here");
    }
    let said: Vec<&str> = called.out.lines().collect();
    assert!(said.len() == 3 && said[0].starts_with("made ") && said[1] == "harmed:" && said[2] == "0", "{called:?}");
    station.verify();
}

/// The front's number was taken over, in the same namespace, before the next jobmeter looked.
#[test]
fn a_number_that_was_taken_over_is_not_killed() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let lines = format!(
        "{AWAIT}
        $JOBMETER run -q --job lost --cpu-source procfs -- sh -c 'touch $DIR/began; while :; do :; done' & front=$!
        await '[ -e $DIR/began ]'
        keeper=$(pgrep -P $front jobmeter)
        kill -STOP $front $keeper; kill -KILL $front $keeper; wait $front
        await '! kill -0 '$keeper
        mkfifo $DIR/line; python3 -c \"$WATCHED\" $front $((front + 1)) < $DIR/line > $DIR/found & exec 9> $DIR/line
        await 'grep -q made $DIR/found'
        $JOBMETER spool flush 9>&- > $DIR/flushed; exec 9>&-
        await 'grep -q harmed $DIR/found'; cat $DIR/found"
    );
    let called = machine(&station, &lines);
    if called.out.starts_with("made 0") {
        return skip_optional("clone3 sets no process id here");
    }
    assert_eq!(called.out, "made 1\nharmed:\n", "{called:?}");
    assert_eq!(station.json(&["jobs", "show", "lost"])["state"], "ended");
    station.verify();
}

/// A daemon that hides itself and burns, beside a command that waits.
const HIDES: &str = "import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(4, 0)
        while True: pass
    os._exit(0)
os.wait()
while True: time.sleep(1)";

/// With `hidepid=$0`, what an ordinary user's doctor says, and how a short job and one that hides itself end with each source.
const HIDDEN_RUNS: &str = "
    mount -t proc -o hidepid=$0 proc /proc || exit 9
    chown 65534:65534 $DIR; export HOME=$DIR
    $AS_NOBODY $JOBMETER --json doctor > $DIR/doctor
    for source in cgroup2 cgroup1 enclosing perf procfs; do
        for code in SHORT HIDES; do
            mkdir $GROUP/own
            bash -c 'echo $$ > $GROUP/own/cgroup.procs; exec $AS_NOBODY $JOBMETER run -q --job $0-$1 --receipt $DIR/$0-$1 \
                --cpu-source $0 --limit 0.0002 -- /usr/bin/python3 -c \"${!1}\"' $source $code 2>> $DIR/said
            echo $source $?
            for _ in $(seq 100); do rmdir $GROUP/own 2> /dev/null && break; sleep 0.01; done
            [ -e $GROUP/own ] && echo left
        done
    done";

/// Doctor's own word on a source. It was not alone in its group.
fn is_said_to_work(doctor: &serde_json::Value, source: &str) -> bool {
    let mut checks = doctor["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["what"] == format!("source {source}"));
    check.unwrap()["works"] == true || source == "enclosing"
}

#[test]
fn a_proc_that_hides_processes_meters_or_refuses_as_doctor_says() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for hidepid in [1, 2, 4] {
        let station = Station::new();
        let group = Around::new(&parent, "hidepid");
        let called = station
            .program("unshare")
            .args(["-m", "bash", "-c", HIDDEN_RUNS, &hidepid.to_string()])
            .env("SHORT", "import time\nwhile time.process_time() < 0.2: pass")
            .env("HIDES", HIDES)
            .env("GROUP", &group.0)
            .env("AS_NOBODY", "setpriv --reuid 65534 --regid 65534 --clear-groups")
            .output();
        let called: Called = called.unwrap().into();
        let text = |name: &str| std::fs::read_to_string(station.path(name)).unwrap_or_default();
        let doctor: serde_json::Value = serde_json::from_str(&text("doctor")).unwrap();
        let works = |source: &str| is_said_to_work(&doctor, source);
        let expected: String = ["cgroup2", "cgroup1", "enclosing", "perf", "procfs"]
            .iter()
            .map(|source| {
                let statuses = if works(source) { [0, 75] } else { [125, 125] };
                statuses.map(|status| format!("{source} {status}\n")).concat()
            })
            .collect();
        assert_eq!(called.out, expected, "hidepid={hidepid}: {called:?} {}", text("said"));
        assert!(works("procfs"), "{doctor}");
        for source in ["enclosing", "procfs"] {
            let receipt: serde_json::Value = serde_json::from_str(&text(&format!("{source}-HIDES"))).unwrap();
            assert_eq!(receipt["outcome"]["reason"], "job_limit", "hidepid={hidepid}: {receipt}");
            assert!(nano(&receipt["credits"]["total"]) <= 200_000, "hidepid={hidepid}: {receipt}");
        }
    }
}

#[test]
fn without_proc_nothing_starts() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    let station = Station::new();
    let called = machine(
        &station,
        "mount -t tmpfs none /proc; $JOBMETER run -- touch $DIR/started; echo $?
         $JOBMETER run --cpu-source procfs -- touch $DIR/started; echo $?; $JOBMETER doctor; echo $?",
    );
    assert!(!station.path("started").exists());
    assert!(called.out.starts_with("125\n125\n") && called.out.ends_with("1\n"), "{called:?}");
    let why = "/proc does not show this process: mount it";
    assert_eq!((called.err.matches(why).count(), called.out.contains(why)), (2, true), "{called:?}");
}
