//! Time that the machine was not the job's although a clock says so: taken by the hypervisor, or by interrupts.

use crate::sys::tree::TICK_US;

/// Of fewer ticks nothing can be said: each stands for what a CPU did at one moment.
const TICKS_MIN: u128 = 100;

/// Time of all CPUs since the machine began, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    busy: u64,
    /// By interrupts, which kernels with IRQ_TIME_ACCOUNTING leave out of a group's counter as well.
    interrupts: u64,
    steal: u64,
}

impl Times {
    /// The first line of `/proc/stat` (proc(5)).
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = *ticks else { return None };
        let busy = user.saturating_add(nice).saturating_add(system);
        Some(Self { busy, interrupts: irq.saturating_add(softirq), steal })
    }

    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn taken(self) -> u64 {
        self.interrupts.saturating_add(self.steal)
    }

    /// `us` less the part that was taken between `before` and now of what was busy or taken.
    fn taken_off(self, before: Self, us: u64) -> u64 {
        let busy = u128::from(self.busy.saturating_sub(before.busy));
        let taken = u128::from(self.taken().saturating_sub(before.taken()));
        let all = Some(busy.saturating_add(taken)).filter(|all| *all >= TICKS_MIN);
        let left = all.and_then(|all| u128::from(us).saturating_mul(busy).checked_div(all));
        left.and_then(|left| u64::try_from(left).ok()).unwrap_or(us)
    }
}

/// How much of busy time was taken since it was made, on all CPUs together.
#[derive(Debug)]
pub(super) struct Stolen(Option<Times>);

impl Stolen {
    /// Counted from now on.
    pub(super) fn from_now() -> Self {
        Self(Times::now())
    }

    /// What of a clock's `us` is left on an average CPU.
    pub(super) fn taken_off(&self, us: u64) -> u64 {
        self.0.zip(Times::now()).map_or(us, |(before, now)| now.taken_off(before, us))
    }
}

/// Taken by the hypervisor since the machine began, in µs.
pub(super) fn steal_us() -> Option<u64> {
    Times::now().map(|times| times.steal.saturating_mul(TICK_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_off_what_an_average_cpu_lost() {
        let before = Times::parse("cpu  100 0 100 900 0 0 0 10 0 0\ncpu0 1\n").unwrap();
        assert_eq!(before, Times { busy: 200, interrupts: 0, steal: 10 });
        let now = Times::parse("cpu  250 20 120 950 7 2 3 15 0 0\n").unwrap();
        assert_eq!(now.taken_off(before, 1_000_000), 950_000);
        let soon = Times::parse("cpu  110 0 100 950 7 2 3 15 0 0\n").unwrap();
        assert_eq!(soon.taken_off(before, 5), 5, "few ticks have passed");
        assert_eq!(Times::parse("cpu 1 2 3\n"), None);
    }
}
