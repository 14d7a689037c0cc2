//! The choice of the CPU source, best first, and what goes with it: where the job is spawned, how it is held and ended,
//! and how fast it can burn.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Pid;
use uuid::Uuid;

use super::attached::AttachedMeter;
use super::cgroup1::Cgroup1Meter;
use super::cgroup2::Cgroup2Meter;
use super::enclosing::EnclosingMeter;
use super::perf::PerfMeter;
use super::procfs::ProcfsMeter;
use super::resources::RateReader;
use super::task_groups::{Task, make_v1, make_v2};
use super::{CpuSource, Meter, MeterError, proof};
use crate::domain::deadline::HighestRate;
use crate::domain::job::LOOK_FLOOR_US;
use crate::sys::cgroup::{Group, group_path_of, own_group_path};
use crate::sys::cgroup1::{V1Group, own_group};
use crate::sys::containment::{Containment, ContainmentSpec};
use crate::sys::proc::{self, Blind};
use crate::sys::process::{in_own_pid_namespace, is_beyond_reach};
use crate::sys::shared::SharedPage;
use crate::sys::user_scope;

/// From a decision to a job that stands still: the write to `cgroup.freeze` and the interrupts to the other CPUs.
const FREEZE_US: u64 = 2_000;

/// How one job will be metered and ended.
#[derive(Debug)]
pub struct Plan {
    source: CpuSource,
    containment: Containment,
    inner: Option<Group>,
    joins: Vec<File>,
    accounting: Option<V1Group>,
    enclosing: Option<EnclosingMeter>,
    attached: Option<AttachedMeter>,
    rate: RateReader,
    tick_us: u64,
    same_user: bool,
    front_is_first: bool,
    degraded: Vec<String>,
}

/// What one source needs.
struct Prepared {
    containment: Containment,
    inner: Option<Group>,
    joins: Vec<File>,
    accounting: Option<V1Group>,
    enclosing: Option<EnclosingMeter>,
}

impl Plan {
    /// Chooses and makes what the source needs. `job_uid` is the user that the command will have.
    ///
    /// # Errors
    /// Where the forced source, or none at all, can be used here.
    pub fn prepare(forced: Option<CpuSource>, attempt: Uuid, job_uid: u32) -> Result<Self, MeterError> {
        proved_to_show_this_process()?;
        let mut degraded = Vec::new();
        for source in CpuSource::BEST_FIRST.into_iter().filter(|source| forced.is_none_or(|forced| forced == *source)) {
            match prepare(source, attempt, forced.is_some()) {
                Ok(prepared) => {
                    let inner = prepared.inner.as_ref().map(|group| group.path().to_owned());
                    let rate = RateReader::new(inner.or_else(|| own_group_path().ok()).as_deref());
                    return Ok(Self::new(source, prepared, rate, degraded, job_uid));
                }
                Err(error) if forced.is_some() => return Err(error),
                Err(error) => degraded.push(format!("CPU time is not metered by {}: {error}", source.as_str())),
            }
        }
        Err(MeterError::Unusable { source_name: "every CPU source", why: degraded.join("; ") })
    }

    /// Meters and ends a group that something else made; what was burned in it before counts, or does not.
    ///
    /// # Errors
    /// Where it cannot be metered or ended from here, or has jobmeter itself in it.
    pub fn attach(path: &Path, from_start: bool) -> Result<Self, MeterError> {
        let fault = |why: String| MeterError::Unusable { source_name: "the group", why };
        proved_to_show_this_process()?;
        let mut group = Group::open(path).map_err(|error| fault(format!("{}: {error}", path.display())))?;
        if group.open_file("cgroup.type").is_err() {
            return Err(fault(format!("{} is the whole machine's group", path.display())));
        }
        let pids = group.processes();
        let own = nix::unistd::getpid().as_raw();
        if !group.is_populated() {
            return Err(fault(format!("nothing runs in {}", path.display())));
        }
        if pids.contains(&own) {
            return Err(fault(format!("jobmeter itself runs in {}", path.display())));
        }
        // A meter that could not stop the job must not begin.
        let untouchable = pids.iter().find(|pid| is_beyond_reach(**pid));
        if let Some(pid) = untouchable {
            return Err(fault(format!("process {pid} in {} may not be ended from here", path.display())));
        }
        let before_us = if from_start { 0 } else { AttachedMeter::burned_us(&group)? };
        let owner = |pid: &i32| Some(std::fs::metadata(proc::path(*pid, "").ok()?).ok()?.uid());
        let uid = pids.first().and_then(owner).unwrap_or(0);
        group.keep_open();
        let attached = AttachedMeter::new(&group, before_us)?;
        let prepared = Prepared {
            containment: Containment::Attached { group, before_us },
            inner: None,
            joins: Vec::new(),
            accounting: None,
            enclosing: None,
        };
        let mut plan = Self::new(CpuSource::Cgroup2, prepared, RateReader::new(Some(path)), Vec::new(), uid);
        plan.attached = Some(attached);
        if !plan.containment.can_hold() {
            plan.degraded.push("attached: the job cannot be frozen at its ceiling, it is killed there".to_owned());
        }
        Ok(plan)
    }

    /// For a task that a scheduler starts, as root. What cannot be metered by groups there is not to run.
    ///
    /// # Errors
    /// Where none can be made, or what is in such groups does not die.
    pub fn of_task(attempt: Uuid, task: &Task<'_>, meters: Option<&Group>, job_uid: u32) -> Result<Self, MeterError> {
        proved_to_show_this_process()?;
        let fault = |source_name, why: String| MeterError::Unusable { source_name, why };
        let of_v2 = || {
            meters.ok_or_else(|| "no cgroup v2 hierarchy is mounted".to_owned()).and_then(proof::prove_kill_cached)?;
            make_v2(attempt, task).map_err(|error| error.to_string())
        };
        let (source, containment, accounting) = match of_v2() {
            Ok(containment) => (CpuSource::Cgroup2, containment, None),
            Err(why) => {
                let (containment, accounting) = make_v1(attempt, task)
                    .map_err(|error| fault("cgroup1", format!("{error}; and cgroup2 is not: {why}")))?;
                (CpuSource::Cgroup1, containment, Some(accounting))
            }
        };
        let prepared = Prepared { containment, inner: None, joins: Vec::new(), accounting, enclosing: None };
        let path = match &prepared.containment {
            Containment::Cgroup2(group) => Some(group.path().to_owned()),
            _ => group_path_of(task.pid).ok(),
        };
        Ok(Self::new(source, prepared, RateReader::new(path.as_deref()), Vec::new(), job_uid))
    }

    fn new(source: CpuSource, prepared: Prepared, rate: RateReader, mut degraded: Vec<String>, job_uid: u32) -> Self {
        match source {
            CpuSource::Cgroup2 | CpuSource::Cgroup1 => degraded.clear(),
            CpuSource::Enclosing | CpuSource::Perf => {
                degraded
                    .push(format!("{}: the job cannot be frozen at its ceiling, it is killed there", source.as_str()));
            }
            CpuSource::Procfs => degraded.push(
                "procfs: no error bound; children whose parent ignores SIGCHLD are not counted, and the job cannot be \
                 frozen at its ceiling"
                    .to_owned(),
            ),
        }
        let name = source.as_str();
        match (source, proc::prove()) {
            (_, Err(blind)) => degraded.push(format!("{name}: what leaves the job's group is not seen: {blind}")),
            (CpuSource::Procfs | CpuSource::Perf | CpuSource::Enclosing, Ok(())) if proc::hides() => degraded.push(format!(
                "{name}: /proc is mounted with hidepid: of processes that cannot be traced only their own CPU time is seen"
            )),
            (_, Ok(())) => {}
        }
        Self {
            source,
            containment: prepared.containment,
            inner: prepared.inner,
            joins: prepared.joins,
            accounting: prepared.accounting,
            enclosing: prepared.enclosing,
            attached: None,
            rate,
            tick_us: tick_us(),
            same_user: nix::unistd::geteuid().as_raw() == job_uid || job_uid == 0,
            front_is_first: std::process::id() == 1 && in_own_pid_namespace(),
            degraded,
        }
    }

    /// Into which group the command is cloned.
    #[must_use]
    pub fn spawn_group(&self) -> Option<BorrowedFd<'_>> {
        self.inner.as_ref().map(Group::dir)
    }

    /// Into which files the command writes `0` where it is not cloned into its group.
    #[must_use]
    pub fn joins(&self) -> Vec<BorrowedFd<'_>> {
        self.joins.iter().map(AsFd::as_fd).collect()
    }

    /// Whether the counter can be opened only on the command's process, which then waits for it before its exec.
    #[must_use]
    pub fn needs_gate(&self) -> bool {
        self.source == CpuSource::Perf
    }

    /// The counter, now that the command's process exists.
    ///
    /// # Errors
    /// Where it cannot be opened; the job must not run then.
    pub fn started(&mut self, child: Pid, shared: SharedPage) -> Result<Box<dyn Meter>, MeterError> {
        let unusable = |why: &str| MeterError::Unusable { source_name: self.source.as_str(), why: why.to_owned() };
        Ok(match (self.source, &self.containment) {
            (CpuSource::Cgroup2, Containment::Cgroup2(group)) => Box::new(Cgroup2Meter::new(group)?),
            (CpuSource::Cgroup2, Containment::Attached { .. }) => {
                Box::new(self.attached.take().ok_or_else(|| unusable("it was opened before"))?)
            }
            (CpuSource::Cgroup1, _) => {
                let group = self.accounting.clone().ok_or_else(|| unusable("its group has gone"))?;
                Box::new(Cgroup1Meter::new(group))
            }
            (CpuSource::Enclosing, _) => {
                Box::new(self.enclosing.take().ok_or_else(|| unusable("it was opened before"))?)
            }
            (CpuSource::Perf, Containment::Tree { front, before_us, .. }) => {
                Box::new(PerfMeter::new(child, *front, *before_us, shared)?)
            }
            (CpuSource::Procfs, Containment::Tree { front, before_us, .. }) => {
                Box::new(ProcfsMeter::new(*front, *before_us, Some(shared)))
            }
            (CpuSource::Cgroup2 | CpuSource::Perf | CpuSource::Procfs, _) => {
                return Err(unusable("it has no containment"));
            }
        })
    }

    /// What the enclosing group's counter says when the keeper, which had been reading it, is lost; it burned so much.
    #[must_use]
    pub fn last_reading(&mut self, keeper_us: u64) -> Option<crate::domain::units::Microseconds> {
        let meter = self.enclosing.as_mut()?;
        meter.set_helpers_us(keeper_us);
        meter.read().ok().map(|reading| reading.cpu_seconds)
    }

    /// How the job is held and ended.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// The same, for the spool.
    #[must_use]
    pub fn specification(&self) -> ContainmentSpec {
        self.containment.spec()
    }

    /// The most that it can burn, as of now.
    #[must_use]
    pub fn highest_rate(&self) -> HighestRate {
        self.rate.highest_rate()
    }

    /// How old the time of a running thread can be.
    #[must_use]
    pub fn tick_us(&self) -> u64 {
        self.tick_us
    }

    /// How long the job may burn unseen: a running thread's time is up to one tick old, the next look comes no sooner
    /// than the floor, and the freeze takes its time.
    #[must_use]
    pub fn stop_us(&self) -> u64 {
        self.tick_us + LOOK_FLOOR_US + FREEZE_US
    }

    /// Removes its groups, which are empty, by what is held open, so that it takes no descriptor. Whether they have gone.
    pub fn discard(&self) -> bool {
        if let Some(inner) = &self.inner {
            // Where that is refused, so is the next.
            inner.remove().ok();
        }
        self.containment.remove().is_ok()
    }

    /// Whether the job could have reached the meter. The front cannot be killed or stopped from within where it is the
    /// first process of its PID namespace, and nothing leaves a container's own group; who kills the keeper ends the job.
    #[must_use]
    pub fn tamper(&self) -> &'static str {
        let out_of_reach = self.source == CpuSource::Enclosing && self.front_is_first;
        if self.same_user && !out_of_reach { "possible" } else { "none" }
    }

    /// What cannot be done exactly here, one sentence each.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        self.degraded.clone()
    }

    /// Which source.
    #[must_use]
    pub fn source(&self) -> CpuSource {
        self.source
    }

    /// How far a final reading can be from the truth.
    #[must_use]
    pub fn error_bound(&self) -> Option<crate::domain::units::Microseconds> {
        let is_own = !matches!(self.containment, Containment::Attached { .. });
        (is_own && matches!(self.source, CpuSource::Cgroup2 | CpuSource::Cgroup1))
            .then_some(crate::domain::units::Microseconds(1))
    }
}

/// Without it nothing can be found here: neither groups nor processes.
fn proved_to_show_this_process() -> Result<(), MeterError> {
    match proc::prove() {
        Err(Blind::Missing) => {
            Err(MeterError::Unusable { source_name: "every CPU source", why: Blind::Missing.to_string() })
        }
        _ => Ok(()),
    }
}

impl Drop for Plan {
    /// However a start ends that comes to no job, its groups go; those in which something lives stay.
    fn drop(&mut self) {
        self.discard();
    }
}

fn prepare(source: CpuSource, attempt: Uuid, is_forced: bool) -> Result<Prepared, MeterError> {
    let tree = || {
        Ok(Prepared {
            containment: Containment::tree_of_self().map_err(unusable(source.as_str()))?,
            inner: None,
            joins: Vec::new(),
            accounting: None,
            enclosing: None,
        })
    };
    match source {
        CpuSource::Cgroup2 => prepare_cgroup2(attempt),
        CpuSource::Cgroup1 => prepare_cgroup1(attempt),
        CpuSource::Enclosing => {
            let path = own_group_path().map_err(unusable("enclosing"))?;
            let group = Group::open(&path).map_err(unusable("enclosing"))?;
            Ok(Prepared { enclosing: Some(EnclosingMeter::new(&group, is_forced)?), ..tree()? })
        }
        CpuSource::Perf => {
            super::perf::permitted()?;
            tree()
        }
        CpuSource::Procfs => tree(),
    }
}

fn unusable(source_name: &'static str) -> impl Fn(std::io::Error) -> MeterError {
    move |error| MeterError::Unusable { source_name, why: error.to_string() }
}

/// Below the group in which jobmeter was started; where an ordinary user may make none there, below one that the user
/// manager of systemd lends.
fn prepare_cgroup2(attempt: Uuid) -> Result<Prepared, MeterError> {
    let fault = |why: String| MeterError::Unusable { source_name: "cgroup2", why };
    make_groups(attempt, proof::prove_kill_cached).or_else(|why| {
        if nix::unistd::geteuid().is_root() {
            return Err(fault(why));
        }
        user_scope::enter().map_err(|error| fault(format!("{why}, and {error}")))?;
        // A scope is new each time, so that there is nothing to remember.
        make_groups(attempt, proof::prove_kill).map_err(fault)
    })
}

/// Two levels: the job is spawned into the inner group, and metered, frozen and killed at the outer one, so that a job
/// of the same user that moves itself up is metered all the same.
fn make_groups(attempt: Uuid, prove: fn(&Group) -> Result<(), String>) -> Result<Prepared, String> {
    let told = |error: std::io::Error| error.to_string();
    let path = own_group_path().map_err(told)?;
    let parent = Group::open(&path).map_err(told)?;
    prove(&parent)?;
    let told = |error: std::io::Error| format!("no group can be made below {}: {error}", path.display());
    let mut outer = parent.create_below(&format!("jobmeter-{attempt}")).map_err(told)?;
    outer.keep_open();
    let made = outer.create_below("job").and_then(|inner| {
        let procs = File::options().write(true).open(inner.path().join("cgroup.procs"))?;
        Ok((inner, procs))
    });
    match made {
        Ok((inner, procs)) => Ok(Prepared {
            containment: Containment::Cgroup2(outer),
            inner: Some(inner),
            joins: vec![procs],
            accounting: None,
            enclosing: None,
        }),
        Err(error) => {
            outer.remove().ok();
            Err(told(error))
        }
    }
}

fn prepare_cgroup1(attempt: Uuid) -> Result<Prepared, MeterError> {
    let fault = unusable("cgroup1");
    let name = format!("jobmeter-{attempt}");
    let (accounting, freezer) = (own_group("cpuacct").map_err(&fault)?, own_group("freezer").map_err(&fault)?);
    let accounting = accounting.create_below(&name).map_err(&fault)?;
    let freezer = freezer.create_below(&name).inspect_err(|_| {
        accounting.remove().ok();
    });
    let freezer = freezer.map_err(&fault)?;
    let joins = [&freezer, &accounting].map(V1Group::open_procs).into_iter().collect::<Result<Vec<_>, _>>();
    let containment = Containment::Cgroup1 { freezer, others: vec![accounting.clone()] };
    match joins {
        Ok(joins) => Ok(Prepared { containment, inner: None, joins, accounting: Some(accounting), enclosing: None }),
        Err(error) => {
            containment.remove().ok();
            Err(fault(error))
        }
    }
}

/// 1 / HZ: the resolution of the coarse clocks, which the tick moves (clock_getres(2)).
fn tick_us() -> u64 {
    let resolution = nix::time::clock_getres(nix::time::ClockId::CLOCK_REALTIME_COARSE);
    resolution.ok().and_then(|time| u64::try_from(time.tv_nsec() / 1_000).ok()).filter(|us| *us > 0).unwrap_or(10_000)
}
