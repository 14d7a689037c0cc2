//! The true usage of an attempt that was settled without it: what was charged too much goes back to where it was paid
//! from, and what was charged too little is charged.

use super::Books;
use super::holds::{Move, charge, give_up, unposted};
use super::rows::{Account, Attempt, Entry};
use crate::domain::book::Source;
use crate::domain::calendar::{day_start, month_start};
use crate::domain::rating::Price;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::protocol::{Finish, Reason};

impl Books<'_> {
    /// Corrects it, once: an attempt whose own last word was taken is never settled anew.
    pub(super) fn correct(
        &mut self,
        attempt: &mut Attempt,
        account: &Account,
        finish: &Finish,
    ) -> Result<(), LedgerError> {
        if attempt.reason != Some(Reason::MeterLost) || attempt.told {
            return Ok(());
        }
        attempt.grow(self.now_us);
        let believed = attempt.believed(&finish.usage);
        self.take_in(attempt, &believed)?;
        let price = attempt.rates.price(&attempt.usage);
        if price.total >= attempt.accounted.total {
            attempt.ceilings = vec![(attempt.newest().0, attempt.accounted.total)];
            self.charge_covered(attempt, account, &price)?;
            give_up(attempt, &price);
            self.release_to(attempt, attempt.period, Nanocredits::ZERO)?;
        } else {
            self.pay_back(attempt, account, &price)?;
        }
        attempt.reason = Some(finish.reason);
        attempt.told = true;
        self.shelf.put_receipt(attempt.id, finish.receipt.clone());
        self.note("finish", account, attempt, "meter", finish.reason.as_str());
        Ok(())
    }

    /// `price` is less than what was accounted for: first the overshoot shrinks, which nobody paid, then the charge.
    fn pay_back(&mut self, attempt: &mut Attempt, account: &Account, price: &Price) -> Result<(), LedgerError> {
        let before = attempt.charged;
        let mut left = before.total.saturating_sub(price.total).at_least_zero();
        attempt.accounted = *price;
        if left == Nanocredits::ZERO {
            attempt.overshoot = price.total.saturating_sub(before.total);
            return Ok(());
        }
        attempt.overshoot = Nanocredits::ZERO;
        attempt.charged = *price;
        // The components may change in both directions; the first entry takes what is no plain amount of CPU time.
        let (gpu, of_tokens) = (price.gpu.saturating_sub(before.gpu), price.tokens.saturating_sub(before.tokens));
        let mut other = gpu.saturating_add(of_tokens);
        let mut parts = Price { gpu, tokens: of_tokens, ..Price::default() };
        let (mut time, mut tokens) = unposted(attempt);
        for paid in self.shelf.paid(attempt)? {
            let part = left.min(paid.amount);
            if part <= Nanocredits::ZERO {
                continue;
            }
            left = left.saturating_sub(part);
            let amount = Nanocredits::ZERO.saturating_sub(part);
            parts = Price { cpu: amount.saturating_sub(other), total: amount, ..parts };
            let day = self.open_day(paid.day);
            let entry = charge(attempt, "correct", paid.period, day);
            let why = "charged in full while silent, and settled now".to_owned();
            self.post_use(Entry { source: paid.source.0, amount, parts, time, tokens, why, ..entry })?;
            if paid.source == Source::DEBT {
                self.forgive(attempt, account, part)?;
            } else {
                self.move_in(&attempt.owner, paid.period, paid.source, Move { charged: amount, ..Move::default() })?;
            }
            (parts, other, tokens) = (Price::default(), Nanocredits::ZERO, 0);
            time = crate::domain::rating::VirtualTime::default();
        }
        Ok(())
    }

    /// What was owed is owed no longer; what of it was paid meanwhile comes back as a grant that ends with the period.
    fn forgive(&mut self, attempt: &Attempt, account: &Account, amount: Nanocredits) -> Result<(), LedgerError> {
        let debt = self.shelf.account(&attempt.owner)?.map(|account| account.debt).unwrap_or_default();
        let owed = amount.min(debt);
        if owed > Nanocredits::ZERO {
            let less = Nanocredits::ZERO.less(owed)?;
            self.change_debt(attempt, account, less, "charged in full while silent, and settled now")?;
        }
        let paid = amount.less(owed)?;
        if paid > Nanocredits::ZERO {
            let why = "paid back: it was owed, and paid since";
            self.give(account, "adjust", paid, Some(account.ends), ("ledger", why))?;
        }
        Ok(())
    }

    /// A month that is closed stays as it was reported: its correction stands in the open one.
    fn open_day(&self, day: i64) -> i64 {
        if day >= month_start(self.now_s()) { day } else { day_start(self.now_s()) }
    }
}
