//! What an attempt was opened with. A ledger that was restored to a time before that does not know the attempt: it is
//! opened again with the ceiling that it obeys, and then told what it was told.

use crate::domain::units::Nanocredits;
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::protocol::{
    AttemptIdentity, Finish, FinishAnswer, OpenRequest, Report, ReportAnswer, Resources, Resume,
};
use crate::ledger::{Ledger, LedgerError};

/// Everything that [`Resume`] needs but the lease in force.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Who.
    pub identity: AttemptIdentity,
    /// How fast at most.
    pub resources: Resources,
    /// The job's own limit.
    pub limit: Option<Nanocredits>,
    /// Which its reports and its finish show as well; `None` where an older jobmeter opened it.
    pub secret: Option<AttemptSecret>,
    /// Of the pinned rate card.
    pub rates_version: u64,
    /// µs since 1970.
    pub started_at_us: i64,
}

/// The lease that an attempt obeys.
#[derive(Clone, Copy)]
struct Obeyed {
    period: i64,
    ceiling: Nanocredits,
    version: u64,
}

impl Origin {
    /// Reports to a ledger that may have forgotten the attempt; `now_us` is µs since 1970.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn report(&self, ledger: &mut dyn Ledger, report: &Report, now_us: i64) -> Result<ReportAnswer, LedgerError> {
        let obeyed = Obeyed { period: report.period, ceiling: report.ceiling, version: report.ceiling_version };
        self.told(ledger, now_us, obeyed, &|ledger| ledger.report(report))
    }

    /// Finishes with a ledger that may have forgotten the attempt.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn finish(&self, ledger: &mut dyn Ledger, finish: &Finish, now_us: i64) -> Result<FinishAnswer, LedgerError> {
        // It burns no more, so that nothing has to be held for it: its usage is charged to what is free.
        let period = finish.closed.as_ref().map_or(finish.period, |closed| closed.period);
        let obeyed = Obeyed { period, ceiling: Nanocredits::ZERO, version: 1 };
        self.told(ledger, now_us, obeyed, &|ledger| ledger.finish(finish))
    }

    fn told<T>(
        &self,
        ledger: &mut dyn Ledger,
        now_us: i64,
        obeyed: Obeyed,
        tell: &dyn Fn(&mut dyn Ledger) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        match tell(ledger) {
            Err(LedgerError::Unknown(_)) => {}
            answer => return answer,
        }
        let resume = Resume {
            started_ms_ago: u64::try_from(now_us.saturating_sub(self.started_at_us) / 1_000).unwrap_or(0),
            rates_version: self.rates_version,
            period: obeyed.period,
            ceiling: obeyed.ceiling,
            ceiling_version: obeyed.version,
        };
        let (identity, resources) = (self.identity.clone(), self.resources.clone());
        let (limit, resume, secret) = (self.limit, Some(resume), self.secret);
        ledger.open(&OpenRequest { identity, resources, limit, resume, secret })?;
        tell(ledger)
    }
}
