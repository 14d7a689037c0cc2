//! What a scripted device does, and what a driver would say of it: the ring of 72 samples of 167 ms, one process a sample,
//! a clock of its own, gaps while it idles, and the driver's oddities.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

/// As others measured on several devices; an H200 under driver 580 has 200 ms.
pub const PERIOD_US: u64 = 167_000;
const RING: u64 = 72;
/// From the end of a sample until it can be read.
const LATENCY_US: u64 = 25_000;
/// A sample that was fully idle is written only if the one before it was not.
const GARBAGE: u32 = 808_334_905;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default = "driver")]
    pub driver: String,
    /// µs since 1970 at which the times of the script begin.
    #[serde(default)]
    pub start_us: u64,
    /// The driver's clock at that time.
    #[serde(default)]
    pub clock_us: u64,
    /// What `nvmlInit` returns.
    #[serde(default)]
    pub init: u32,
    /// Names of functions and what they return instead.
    #[serde(default)]
    pub faults: BTreeMap<String, u32>,
    #[serde(default)]
    pub devices: Vec<Device>,
    /// All calls hang in this stretch.
    #[serde(default)]
    pub hangs_ms: Option<(u64, u64)>,
    /// Each call prints something, as some libraries do.
    #[serde(default)]
    pub prints: bool,
    /// The helper dies in this stretch.
    #[serde(default)]
    pub crashes_ms: Option<(u64, u64)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub uuid: String,
    #[serde(default = "name")]
    pub name: String,
    #[serde(default)]
    pub busy: Vec<Stretch>,
    /// Calls on it fail as those on a lost device do.
    #[serde(default)]
    pub lost_ms: Option<(u64, u64)>,
    /// The driver is loaded anew then: clock, ring and energy begin again.
    #[serde(default)]
    pub reloaded_ms: Option<u64>,
    /// Each so manieth sample is garbage.
    #[serde(default)]
    pub garbage_each: Option<u64>,
    /// It may not be opened.
    #[serde(default)]
    pub denied: bool,
    /// Its process records say 0, as on some Blackwell devices.
    #[serde(default)]
    pub says_zero: bool,
    /// Its process records tell of processes that have ended; driver 580.159.04 drops them at once.
    #[serde(default)]
    pub keeps_the_dead: bool,
    /// Its ring has idle samples too, as under driver 580.159.04.
    #[serde(default)]
    pub tells_idle: bool,
    /// It refuses a question for samples with more room than it has asked for.
    #[serde(default)]
    pub counts_first: bool,
    /// How long a sample is.
    #[serde(default = "period")]
    pub period_us: u64,
    /// Clients of MPS use it.
    #[serde(default)]
    pub mps: bool,
    #[serde(default)]
    pub parts: Vec<Part>,
    /// It has counters of how busy it was, as Hopper and newer.
    #[serde(default)]
    pub counters: bool,
    /// Which say only so many percent of the truth.
    #[serde(default)]
    pub counters_percent: Option<u64>,
    /// How busy it is now can be asked.
    #[serde(default)]
    pub tells_rates: bool,
    /// Why its clocks are lowered, as bits.
    #[serde(default)]
    pub slowdown: u64,
    /// When its memory had an error.
    #[serde(default)]
    pub ecc_ms: Vec<u64>,
    /// When a row of it was replaced by a spare one.
    #[serde(default)]
    pub remapped_ms: Vec<u64>,
    /// When the driver had an error of it, and its number; in their order.
    #[serde(default)]
    pub xids: Vec<(u64, u64)>,
}

/// A MIG device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub uuid: String,
    pub profile: String,
    #[serde(default)]
    pub busy: Vec<Stretch>,
    #[serde(default)]
    pub shares_instance: bool,
}

/// So busy from then to then, by these processes in turn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    #[serde(default)]
    pub from_ms: u64,
    #[serde(default = "for_ever")]
    pub until_ms: u64,
    pub percent: u64,
    /// Numbers, or files that hold one: real processes know their ids only when they run.
    #[serde(default)]
    pub pids: Vec<Pid>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Pid {
    Number(u32),
    File(String),
}

fn driver() -> String {
    "570.124.06".to_owned()
}

fn name() -> String {
    "NVIDIA H200".to_owned()
}

fn period() -> u64 {
    PERIOD_US
}

fn for_ever() -> u64 {
    u64::MAX / 2_000
}

impl Pid {
    /// Once it is known.
    pub fn read(&self) -> Option<u32> {
        match self {
            Self::Number(pid) => Some(*pid),
            Self::File(path) => std::fs::read_to_string(path).ok()?.trim().parse().ok(),
        }
    }

    fn lives(&self) -> bool {
        match self {
            // Another's, which nobody looks at.
            Self::Number(_) => true,
            Self::File(_) => self.read().is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()),
        }
    }
}

/// As the driver cuts a busy time to whole percents. No work is as even as a script's.
fn cut(ppm: u64, number: u64) -> u64 {
    let unevenness = if (1..1_000_000).contains(&ppm) { number * 3_701 % 10_000 } else { 5_000 };
    (ppm + unevenness).saturating_sub(5_000) / 10_000
}

/// Busy time × percent of a stretch within a window.
fn worked_us(busy: &[Stretch], from_us: u64, until_us: u64) -> u64 {
    busy.iter().map(|stretch| overlap_us(stretch, from_us, until_us) * stretch.percent).sum()
}

fn overlap_us(stretch: &Stretch, from_us: u64, until_us: u64) -> u64 {
    let (from, until) = (from_us.max(stretch.from_ms * 1_000), until_us.min(stretch.until_ms * 1_000));
    until.saturating_sub(from)
}

/// Parts per million of a window.
pub fn busy_ppm(busy: &[Stretch], from_us: u64, until_us: u64) -> u64 {
    (worked_us(busy, from_us, until_us) * 10_000).checked_div(until_us.saturating_sub(from_us)).unwrap_or(0)
}

/// Whoever has the device open now.
pub fn open(busy: &[Stretch], now_us: u64) -> Vec<u32> {
    let now = busy.iter().filter(|stretch| overlap_us(stretch, now_us, now_us + 1) > 0);
    let pids = now.flat_map(|stretch| &stretch.pids).filter(|pid| pid.lives());
    pids.filter_map(Pid::read).collect()
}

/// One sample of the ring.
pub struct Sample {
    /// By the driver's clock.
    pub at: u64,
    pub value: u32,
    pub pid: Option<u32>,
}

impl Device {
    /// Since the driver was loaded.
    fn origin_us(&self, now_us: u64) -> u64 {
        self.reloaded_ms.map(|ms| ms * 1_000).filter(|at_us| now_us >= *at_us).unwrap_or(0)
    }

    /// The ring as of now, the oldest first.
    pub fn ring(&self, now_us: u64, clock_us: u64) -> Vec<Sample> {
        let origin_us = self.origin_us(now_us);
        let clock_us = if origin_us > 0 { 1_000 } else { clock_us };
        let ended = now_us.saturating_sub(LATENCY_US).saturating_sub(origin_us) / self.period_us;
        let sample = |number: u64| {
            let until_us = origin_us + number * self.period_us;
            let from_us = until_us - self.period_us;
            let percent = cut(busy_ppm(&self.busy, from_us, until_us), number);
            let garbage = self.garbage_each.is_some_and(|each| number.is_multiple_of(each));
            let value = if garbage { GARBAGE } else { u32::try_from(percent).unwrap_or(u32::MAX) };
            Sample {
                at: clock_us + number * self.period_us,
                value,
                pid: self.pid_of(clock_us + number, from_us, until_us),
            }
        };
        let idle = |number: u64| {
            number > 0
                && busy_ppm(&self.busy, origin_us + (number - 1) * self.period_us, origin_us + number * self.period_us)
                    == 0
        };
        // While it idles the ring of most drivers runs dry.
        let written = (1..=ended).rev().filter(|number| self.tells_idle || !(idle(*number) && idle(number - 1)));
        let mut ring: Vec<Sample> = written.take(usize::try_from(RING).unwrap()).map(sample).collect();
        ring.reverse();
        ring
    }

    /// The driver gives each sample to the one process that was active when it was taken: by chance.
    fn pid_of(&self, seed: u64, from_us: u64, until_us: u64) -> Option<u32> {
        let weight = |stretch: &Stretch| overlap_us(stretch, from_us, until_us) * stretch.percent;
        let mut all: Vec<(&Pid, u64)> = Vec::new();
        for stretch in &self.busy {
            let each = weight(stretch) / (stretch.pids.len() as u64).max(1);
            all.extend(stretch.pids.iter().map(|pid| (pid, each)));
        }
        let sum: u64 = all.iter().map(|(_, weight)| weight).sum();
        // The mixing of SplitMix64.
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut at = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).checked_rem(sum)?;
        for (pid, weight) in all {
            if at < weight {
                return pid.read();
            }
            at -= weight;
        }
        None
    }

    /// Of each process in the samples after `after`: the sum of its samples over the number of all, cut to whole percents,
    /// and the time of its last one. An idle sample counts with the one before it.
    pub fn used(&self, now_us: u64, clock_us: u64, after: u64) -> Vec<(u32, u32, u64)> {
        let living = open(&self.busy, now_us);
        let (mut sums, mut count, mut last) = (BTreeMap::<u32, (u64, u64)>::new(), 0, None);
        for sample in self.ring(now_us, clock_us).iter().filter(|sample| sample.at > after && sample.value <= 100) {
            last = sample.pid.or(last);
            let Some(pid) = last.filter(|pid| self.keeps_the_dead || living.contains(pid)) else { continue };
            count += 1;
            if sample.pid.is_some() {
                let sum = sums.entry(pid).or_default();
                *sum = (sum.0 + u64::from(sample.value), sample.at);
            }
        }
        let percent = |sum: u64| if self.says_zero { 0 } else { u32::try_from(sum / count).unwrap_or(0) };
        sums.into_iter().map(|(pid, (sum, at))| (pid, percent(sum), at)).collect()
    }

    /// 100 W idle and 600 W more when it works.
    pub fn energy_mj(&self, now_us: u64) -> u64 {
        let origin_us = self.origin_us(now_us);
        (now_us - origin_us) / 10 + worked_us(&self.busy, origin_us, now_us) * 6 / 1_000
    }
}

/// The one of this process, if there is one.
pub fn script() -> Option<&'static Script> {
    static SCRIPT: OnceLock<Option<Script>> = OnceLock::new();
    let path = std::env::var_os("FAKE_NVML").unwrap_or_else(|| "/run/fake-nvml.json".into());
    let read = || serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok();
    SCRIPT.get_or_init(read).as_ref()
}

/// How much of what a device does multiprocessors (2), tensor cores (5) and memory (10) do, by the number of the metric.
pub fn part_percent(metric: u32) -> u64 {
    match metric {
        2 => 80,
        5 => 30,
        10 => 50,
        _ => 100,
    }
}

/// Since the times of the script began.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let us = u64::try_from(since.as_micros()).unwrap_or(0);
    us.saturating_sub(script().map_or(0, |script| script.start_us))
}
