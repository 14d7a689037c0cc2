//! Tokens that are charged to a job itself.

use super::Books;
use super::holds::Move;
use super::rows::{Entry, Job};
use crate::domain::book::{Source, sum, take};
use crate::domain::rating::Price;
use crate::domain::units::Nanocredits;
use crate::domain::usage::Usage;
use crate::ledger::LedgerError;
use crate::ledger::views::ChangeAnswer;

impl Books<'_> {
    pub(super) fn charge_tokens(&mut self, job: &str, count: u64, by: &str) -> Result<ChangeAnswer, LedgerError> {
        let job = self.known_job(job)?;
        let account = self.account(&job.owner)?;
        let total = job.tokens.checked_add(count).filter(|total| i64::try_from(*total).is_ok());
        let total = total.ok_or_else(|| LedgerError::Refused(format!("{count} tokens are too many for one job")))?;
        // Priced on the job's total, so that rounding never accumulates; a dearer card does not reprice what was paid.
        let card = self.rate_card()?;
        let price_of = |tokens: u64| card.price(&Usage { tokens, ..Usage::default() }).total;
        let cost = price_of(total).saturating_sub(price_of(job.tokens)).at_least_zero();
        let free = self.free(&account)?;
        let of_job = job.limit.map_or(cost, |limit| {
            let used = job.sums.charged.saturating_add(job.sums.held).saturating_add(job.tokens_charged);
            limit.saturating_sub(used).at_least_zero()
        });
        let charged = cost.min(sum(&free)).min(of_job);
        let mut parts = take(&free, charged);
        if parts.is_empty() {
            // What could not be paid is told all the same.
            parts.push((Source::ALLOWANCE, Nanocredits::ZERO));
        }
        let mut tokens = count;
        for (source, amount) in parts {
            self.move_in(&account.owner, account.period, source, Move { charged: amount, ..Move::default() })?;
            let parts = Price { tokens: amount, total: amount, ..Price::default() };
            let entry = self.of_account("tokens", &account, by, "");
            let (job, source) = (Some(job.id.clone()), source.0);
            self.shelf.append(Entry { source, amount, parts, tokens, job, ..entry });
            tokens = 0;
        }
        let overshoot = cost.saturating_sub(charged);
        self.shelf.put_job(Job {
            tokens: total,
            tokens_charged: job.tokens_charged.saturating_add(charged),
            tokens_overshoot: job.tokens_overshoot.saturating_add(overshoot),
            ..job
        });
        Ok(ChangeAnswer { charged, overshoot, ..self.answer(&account)? })
    }
}
