//! Alerts: how far an account has come is told once, when it gets there.

use super::Books;
use super::rows::{Account, Alert};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;

/// In percent of what can be spent in the period, the highest first; the first one is "exhausted".
const THRESHOLDS: [i64; 3] = [100, 95, 80];

/// Why an account has to be looked at after an operation.
#[derive(Clone, Debug)]
pub(super) enum Touched {
    /// Credits of it were charged.
    Spent(String),
    /// Something that runs, or wants to, gets no more.
    Exhausted(String),
    /// What can be spent is another sum now.
    Changed(String),
}

impl Books<'_> {
    /// Notes what an operation has done; to be exhausted or changed says more than to be charged.
    pub(super) fn touch(&mut self, touched: Touched) {
        if !matches!((&self.touched, &touched), (Some(Touched::Exhausted(_) | Touched::Changed(_)), Touched::Spent(_)))
        {
            self.touched = Some(touched);
        }
    }

    /// After an operation: tells if another threshold was reached. After a change of what can be spent it may be reached
    /// again later.
    pub(super) fn watch(&mut self) -> Result<(), LedgerError> {
        let (owner, is_out, is_changed) = match self.touched.take() {
            None => return Ok(()),
            Some(Touched::Spent(owner)) => (owner, false, false),
            Some(Touched::Exhausted(owner)) => (owner, true, false),
            Some(Touched::Changed(owner)) => (owner, false, true),
        };
        let account = self.account(&owner)?;
        let Some((spent, spendable)) = self.spent_of(&account)? else { return Ok(()) };
        let percent = if is_out { 100 } else { reached(spent, spendable) };
        let before = self.period(&owner, account.period)?.alerted;
        if percent == before || (percent < before && !is_changed) {
            return Ok(());
        }
        self.shelf.change_period(&owner, account.period, |period| period.alerted = percent);
        if percent > before && !(is_changed && spendable == Nanocredits::ZERO) {
            let (at_us, period) = (self.now_us, account.period);
            let (sent_us, tries, next_try_us) = (None, 0, at_us);
            self.shelf.put_alert(Alert {
                owner,
                period,
                percent,
                at_us,
                spent,
                spendable,
                sent_us,
                tries,
                next_try_us,
            });
        }
        Ok(())
    }
}

impl Books<'_> {
    /// What was spent, and of how much; `None` without a limit. Who has grants alone has them as they stand, whatever the day: each is told
    /// of once.
    fn spent_of(&mut self, account: &Account) -> Result<Option<(Nanocredits, Nanocredits)>, LedgerError> {
        let snapshot = self.snapshot(account)?;
        let Some((left, limit)) = snapshot.left.zip(snapshot.limit) else { return Ok(None) };
        if account.limit != Some(Nanocredits::ZERO) {
            return Ok(Some((limit.less(left)?, limit)));
        }
        let now_s = self.now_s();
        let mut given = Nanocredits::ZERO;
        for grant in self.grants(&account.owner)?.iter().filter(|grant| grant.is_live(now_s)) {
            given = given.plus(grant.amount.less(grant.taken)?)?;
        }
        let given = given.max(limit);
        Ok(Some((given.less(left)?, given)))
    }
}

/// The highest threshold that was reached; zero for none.
pub(crate) fn reached(spent: Nanocredits, spendable: Nanocredits) -> i64 {
    let (spent, spendable) = (i128::from(spent.0), i128::from(spendable.0));
    let found = THRESHOLDS.into_iter().find(|percent| spent * 100 >= spendable * i128::from(*percent));
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_reached_to_the_nanocredit() {
        let of = |spent, spendable| reached(Nanocredits(spent), Nanocredits(spendable));
        assert_eq!(
            [of(79, 100), of(80, 100), of(94, 100), of(95, 100), of(99, 100), of(100, 100)],
            [0, 80, 80, 95, 95, 100]
        );
        assert_eq!([of(3_999_999_999, 5_000_000_000), of(4_000_000_000, 5_000_000_000)], [0, 80]);
        assert_eq!([of(0, 0), of(5, -3), of(i64::MAX, i64::MAX)], [100, 100, 100]);
    }
}
