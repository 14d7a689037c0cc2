//! An account that a clock which was years ahead has moved into a period years ahead: put back by an operator.

use super::rows::{Account, Period};
use super::{Books, ms_to_us};
use crate::domain::calendar::date;
use crate::domain::lease::LEASE_MS;
use crate::ledger::LedgerError;
use crate::ledger::views::ChangeAnswer;

impl Books<'_> {
    /// The account is in the period that holds the ledger's time again. Leases that would last for years are over: an attempt that runs
    /// reports, and one that does not can be settled.
    pub(super) fn repair_period(&mut self, user: &str, (by, why): (&str, &str)) -> Result<ChangeAnswer, LedgerError> {
        let unknown =
            || LedgerError::Missing(format!("no account {user:?} is known: `jobmeter account show` makes it"));
        let before = self.shelf.account(user)?.cloned().ok_or_else(unknown)?;
        if before.period <= self.now_s() {
            return Ok(ChangeAnswer { balance: Some(self.balance(&before)?), ..ChangeAnswer::nothing(true) });
        }
        let (start, ends) = self.ensure_period_of_now(&before)?;
        self.shelf.change_account(user, |account| {
            (account.period, account.ends) = (start, ends);
            (account.sums.silent_from_us, account.sums.waits_until_us) = (0, 0);
        });
        self.free_up(user);
        let latest_us = self.now_us + ms_to_us(2 * LEASE_MS);
        for id in self.shelf.unsettled(user, i64::MAX)? {
            let found = self.shelf.attempt(id)?.filter(|attempt| attempt.lease_until_us > latest_us);
            if let Some(mut attempt) = found {
                (attempt.lease_until_us, attempt.live) = (self.now_us, false);
                self.keep(attempt)?;
            }
        }
        let account = self.shelf.account(user)?.unwrap_or(&before).clone();
        let told = format!("from {} to {}: {why}", date(before.period), date(start));
        let entry = self.of_account("repair", &account, by, &told);
        self.shelf.append(entry);
        self.answer(&account)
    }

    /// The period that holds the ledger's time, made where there is none.
    fn ensure_period_of_now(&mut self, account: &Account) -> Result<(i64, i64), LedgerError> {
        let now_s = self.now_s();
        let (mut start, mut ends) = Period::bounds(account.length, now_s);
        for (from, to) in self.shelf.spans(&account.owner, start, ends)? {
            if (from..to).contains(&now_s) {
                return Ok((from, to));
            }
            (start, ends) = if to <= now_s { (start.max(to), ends) } else { (start, ends.min(from)) };
        }
        let given = Period::given(account.limit, account.length, (start, ends))?;
        self.shelf.put_period(Period::new(&account.owner, (start, ends), given));
        Ok((start, ends))
    }
}
