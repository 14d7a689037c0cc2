//! What most reports leave as it is: all of an attempt but the CPU time that it burned, and its lease.

use super::rows::Attempt;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::usage::Usage;
use crate::ledger::attempt_secret::SecretHash;
use crate::ledger::protocol::{Pace, Reason};

/// How far an attempt is another than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It is new, has ended, or entered another period.
    Whole,
    /// It goes on in its period.
    GoesOn,
    /// It burned CPU time, and has another lease.
    Burns,
}

/// Two states of an attempt with the same of it differ at most in what `ATTEMPT_BURNS` of the stores writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steady {
    period: i64,
    ended: (Option<i64>, Option<Reason>, bool),
    pace: Pace,
    /// Without that of the CPU.
    usage: Usage,
    told_tokens: u64,
    told_gpu: Microseconds,
    /// Accounted for and charged, of GPUs and tokens.
    prices: [Nanocredits; 4],
    overshoot: Nanocredits,
    next: Option<(i64, Nanocredits)>,
    secret: Option<SecretHash>,
}

impl Steady {
    /// That of an attempt.
    #[must_use]
    pub(crate) fn of(attempt: &Attempt) -> Self {
        let Attempt { accounted, charged, usage, .. } = attempt;
        let zero = Microseconds::default();
        let (gpus, tokens) = (usage.gpus.clone(), usage.tokens);
        Self {
            period: attempt.period,
            ended: (attempt.ended_us, attempt.reason, attempt.told),
            pace: attempt.pace,
            usage: Usage { cpu_used_seconds: zero, cpu_allocated_seconds: zero, gpus, tokens },
            told_tokens: attempt.told_tokens,
            told_gpu: attempt.accounted_time.gpu_seconds,
            prices: [accounted.gpu, accounted.tokens, charged.gpu, charged.tokens],
            overshoot: attempt.overshoot,
            next: attempt.next,
            secret: attempt.secret,
        }
    }

    /// How far an attempt is another than when it had `before`.
    #[must_use]
    pub(crate) fn extent(before: Option<&Self>, attempt: &Attempt) -> Extent {
        let after = Self::of(attempt);
        match before {
            Some(before) if *before == after => Extent::Burns,
            Some(before) if before.goes_on() && after.goes_on() && before.period == after.period => Extent::GoesOn,
            _ => Extent::Whole,
        }
    }

    fn goes_on(&self) -> bool {
        self.ended.0.is_none()
    }
}
