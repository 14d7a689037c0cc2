//! What an attempt was opened with. A ledger that was restored to a time before that does not know the attempt: it is
//! opened again with the ceiling that it obeys, and then told what it was told.

use crate::domain::units::Nanocredits;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::protocol::{
    AttemptIdentity, Finish, FinishAnswer, OpenRequest, Report, ReportAnswer, Resources, Resume,
};
use crate::ledger::{Ledger, LedgerError};
use crate::sys::clock::Clock;

/// Everything that [`Resume`] needs but the lease in force.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who.
    pub identity: AttemptIdentity,
    /// How fast at most, as it was opened with.
    pub resources: Resources,
    /// The job's own limit.
    pub limit: Option<Nanocredits>,
    /// Which its reports and its finish show as well; `None` where an older jobmeter opened it.
    pub secret: Option<AttemptSecret>,
    /// Of the pinned rate card.
    pub rates_version: u64,
    /// By the clock of people, and by the one that is never set.
    pub began: Beginning,
}

/// When an attempt began.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// µs since 1970-01-01 UTC.
    pub realtime_us: i64,
    /// µs of `CLOCK_BOOTTIME`; `None` where the machine was booted since.
    pub boottime_us: Option<u64>,
}

impl Beginning {
    /// A clock that was set since the attempt began changes nothing while the machine runs.
    fn age_us(self, clock: &dyn Clock) -> u64 {
        let by_people = || u64::try_from(clock.realtime_us().saturating_sub(self.realtime_us)).unwrap_or(0);
        self.boottime_us.and_then(|began_us| clock.boottime_us().checked_sub(began_us)).unwrap_or_else(by_people)
    }
}

/// The lease that an attempt obeys.
#[derive(Clone, Copy)]
struct Obeyed {
    period: i64,
    ceiling: Nanocredits,
    version: u64,
}

impl Origin {
    /// Reports to a ledger that may have forgotten the attempt.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn report(
        &self,
        ledger: &mut dyn Ledger,
        report: &Report,
        clock: &dyn Clock,
    ) -> Result<ReportAnswer, LedgerError> {
        let obeyed = Obeyed { period: report.period, ceiling: report.ceiling, version: report.ceiling_version };
        self.told(ledger, clock, obeyed, &report.resources, &|ledger| ledger.report(report))
    }

    /// Finishes with a ledger that may have forgotten the attempt.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn finish(
        &self,
        ledger: &mut dyn Ledger,
        finish: &Finish,
        clock: &dyn Clock,
    ) -> Result<FinishAnswer, LedgerError> {
        // It burns no more, so that nothing has to be held for it: its usage is charged to what is free.
        let period = finish.closed.as_ref().map_or(finish.period, |closed| closed.period);
        let obeyed = Obeyed { period, ceiling: Nanocredits::ZERO, version: 1 };
        self.told(ledger, clock, obeyed, &self.resources, &|ledger| ledger.finish(finish))
    }

    fn told<T>(
        &self,
        ledger: &mut dyn Ledger,
        clock: &dyn Clock,
        obeyed: Obeyed,
        resources: &Resources,
        tell: &dyn Fn(&mut dyn Ledger) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        match tell(ledger) {
            Err(LedgerError::Unknown(_)) => {}
            answer => return answer,
        }
        let resume = Resume {
            started_ms_ago: self.began.age_us(clock) / 1_000,
            rates_version: self.rates_version,
            period: obeyed.period,
            ceiling: obeyed.ceiling,
            ceiling_version: obeyed.version,
        };
        let (identity, resources) = (self.identity.clone(), resources.clone());
        let (limit, resume, secret) = (self.limit, Some(resume), self.secret);
        ledger.open(&OpenRequest { identity, resources, limit, resume, secret })?;
        tell(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::Beginning;
    use crate::sys::clock::Clock;

    struct At(u64, i64);

    impl Clock for At {
        fn boottime_us(&self) -> u64 {
            self.0
        }

        fn realtime_us(&self) -> i64 {
            self.1
        }
    }

    #[test]
    fn a_clock_that_was_set_changes_no_age_while_the_machine_runs() {
        let began = Beginning { realtime_us: 1_000, boottime_us: Some(400) };
        assert_eq!(began.age_us(&At(900, -5_000)), 500);
        assert_eq!(began.age_us(&At(900, 9_000_000)), 500);
    }

    #[test]
    fn after_a_boot_an_attempt_is_as_old_as_the_clock_says_and_never_younger_than_nothing() {
        let began = Beginning { realtime_us: 1_000, boottime_us: None };
        assert_eq!(began.age_us(&At(50, 1_700)), 700);
        assert_eq!(began.age_us(&At(50, 900)), 0);
    }
}
