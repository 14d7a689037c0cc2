//! How exact each source is, against the counter of a group around all of it.

use std::path::Path;

use crate::station::{Station, micros, nano};
use crate::{Around, alone, present, v2};

/// 300 children that double-fork, lead sessions of their own and live for some milliseconds.
const SHORT_LIVED: &str = "
import os
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            sum(range(60000))
        os._exit(0)
    os.waitpid(pid, 0)
";

/// Metered CPU time as a share of the truth, in ten-thousandths; jobmeter's own time is no part of the truth.
fn share(parent: &Path, source: &str, code: &str) -> u64 {
    let station = Station::new();
    let group = Around::new(parent, source);
    let line =
        format!("{} run --wait-descendants --job s --cpu-source {source} -- python3 -c \"$CODE\"", group.enter());
    let called: crate::station::Called = station.shell(&line).env("CODE", code).output().unwrap().into();
    assert_eq!(called.status, 0, "{called:?}");
    let receipt = station.receipt("s");
    assert_eq!(receipt["cpu"]["source"], source);
    let metered = micros(&receipt["cpu"]["total_seconds"]);
    let own = micros(&receipt["meter"]["cpu_seconds"]);
    let truth = group.cpu_us().saturating_sub(own);
    println!("{source}: {metered} µs metered of {truth} µs");
    metered * 10_000 / truth
}

#[test]
fn groups_count_every_short_lived_child() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    for source in present(["cgroup2", "cgroup1"]) {
        let share = share(&parent, source, SHORT_LIVED);
        assert!((9_800..=10_050).contains(&share), "{source}: {share}");
    }
}

#[test]
fn perf_counts_every_short_lived_child() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let share = share(&parent, "perf", SHORT_LIVED);
    assert!((9_700..=10_200).contains(&share), "{share}");
}

#[test]
fn procfs_counts_what_parents_wait_for() {
    let Some(parent) = v2() else { return };
    let _one = alone();
    let code = "import os\nfor _ in range(40):\n  p = os.fork()\n  if p == 0:\n    sum(range(1200000)); os._exit(0)\n  os.waitpid(p, 0)\n";
    let share = share(&parent, "procfs", code);
    assert!((9_000..=10_600).contains(&share), "{share}");
}

#[test]
fn every_source_stops_at_the_limit_and_charges_no_more() {
    if v2().is_none() {
        return;
    }
    let _one = alone();
    for source in present(["cgroup2", "cgroup1", "perf", "procfs"]) {
        for threads in [1, 8] {
            let station = Station::new();
            let code =
                format!("import os\nfor _ in range({threads} - 1):\n  if os.fork() == 0: break\nwhile True: pass\n");
            let called = station.call(&[
                "run",
                "--job",
                "l",
                "--limit",
                "0.0003",
                "--cpu-source",
                source,
                "--",
                "python3",
                "-c",
                &code,
            ]);
            assert_eq!(called.status, 75, "{source}: {called:?}");
            let receipt = station.receipt("l");
            let (charged, burned) = (nano(&receipt["credits"]["total"]), micros(&receipt["cpu"]["total_seconds"]));
            println!("{source}, {threads} processes: {burned} µs burned of 1200000");
            assert!(charged <= 300_000, "{source}: {charged}");
            assert!((1_100_000..1_240_000).contains(&burned), "{source}: {burned}");
            station.verify();
        }
    }
}
