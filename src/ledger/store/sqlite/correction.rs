//! The true usage of an attempt that was settled without it: what was charged too much goes back to where it was paid
//! from, and what was charged too little is charged.

use super::Books;
use super::accounts::Account;
use super::entries::Entry;
use super::row::Attempt;
use crate::domain::book::Source;
use crate::domain::calendar::{day_start, month_start};
use crate::domain::rating::Price;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{Finish, Reason};

/// What an attempt has paid out of one source of one period, the last day of it.
struct Paid {
    period: i64,
    source: Source,
    amount: Nanocredits,
    day: i64,
}

impl Books<'_> {
    /// Corrects it, once: an attempt whose own last word was taken is never settled anew.
    pub(super) fn correct(&self, attempt: &mut Attempt, account: &Account, finish: &Finish) -> Result<(), LedgerError> {
        let lost = attempt.reason == Some(Reason::MeterLost) && attempt.receipt.is_none();
        if !lost {
            return Ok(());
        }
        attempt.state.usage = attempt.state.usage.merged(&finish.usage);
        let price = attempt.state.rates.price(&attempt.state.usage);
        if price.total >= attempt.state.accounted.total {
            attempt.state.ceilings = vec![(attempt.newest().0, attempt.state.accounted.total)];
            self.charge_covered(attempt, account, &price)?;
            self.give_up(attempt, &price);
            self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        } else {
            self.pay_back(attempt, &price)?;
        }
        attempt.reason = Some(finish.reason);
        attempt.receipt = Some(finish.receipt.clone());
        self.append(&self.note("finish", account, attempt, finish.reason.as_str()))?;
        self.keep(attempt)
    }

    /// `price` is less than what was accounted for: first the overshoot shrinks, which nobody paid, then the charge.
    fn pay_back(&self, attempt: &mut Attempt, price: &Price) -> Result<(), LedgerError> {
        let before = attempt.state.charged;
        let mut left = before.total.saturating_sub(price.total).at_least_zero();
        attempt.state.accounted = *price;
        if left == Nanocredits::ZERO {
            attempt.state.overshoot = price.total.saturating_sub(before.total);
            return Ok(());
        }
        attempt.state.overshoot = Nanocredits::ZERO;
        attempt.state.charged = *price;
        let tokens = attempt.state.usage.tokens.saturating_sub(self.posted_tokens(attempt)?);
        let mut entry = Entry { kind: "correct", tokens, time: self.unposted_time(attempt), ..Entry::default() };
        // The components may change in both directions; the first entry takes what is no plain amount of CPU time.
        let (gpu, of_tokens) = (price.gpu.saturating_sub(before.gpu), price.tokens.saturating_sub(before.tokens));
        let mut other = gpu.saturating_add(of_tokens);
        (entry.parts.gpu, entry.parts.tokens) = (gpu, of_tokens);
        for paid in self.paid(attempt)? {
            let part = left.min(paid.amount);
            if part <= Nanocredits::ZERO {
                break;
            }
            left = left.saturating_sub(part);
            entry.amount = Nanocredits::ZERO.saturating_sub(part);
            entry.parts.cpu = entry.amount.saturating_sub(other);
            self.pay(&attempt.user, paid.period, paid.source, entry.amount)?;
            self.append(&Entry {
                user: &attempt.user,
                period: paid.period,
                day: self.open_day(paid.day),
                source: paid.source.0,
                job: Some(&attempt.job),
                attempt: Some(attempt.id),
                by: "meter",
                why: "charged in full while silent, and settled now",
                ..entry.clone()
            })?;
            (entry, other) = (Entry { kind: "correct", ..Entry::default() }, Nanocredits::ZERO);
        }
        Ok(())
    }

    /// The last that was paid first.
    fn paid(&self, attempt: &Attempt) -> Result<Vec<Paid>, LedgerError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT period, source, sum(amount), max(day) FROM entry WHERE job = ?1 AND attempt = ?2 AND \
             kind IN ('charge', 'correct') GROUP BY period, source ORDER BY max(id) DESC",
        )?;
        let rows = statement.query_map((&attempt.job, attempt.id.to_string()), |row| {
            Ok(Paid {
                period: row.get(0)?,
                source: Source(row.get(1)?),
                amount: Nanocredits(row.get(2)?),
                day: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A month that is closed stays as it was reported: its correction stands in the open one.
    fn open_day(&self, day: i64) -> i64 {
        if day >= month_start(self.now_s()) { day } else { day_start(self.now_s()) }
    }
}
