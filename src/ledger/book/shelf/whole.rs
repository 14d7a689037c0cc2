//! The newest rate card, and what holds for the ledger as a whole: each is read once in a transaction.

use super::{Shelf, load};
use crate::domain::rating::RateCard;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::Epoch;
use crate::ledger::book::whole::Whole;

impl Shelf<'_> {
    /// The card that counts for what starts now.
    pub(in crate::ledger::book) fn newest_rates(&mut self) -> Result<RateCard, LedgerError> {
        if let Some((card, _)) = self.new_cards.last() {
            return Ok(card.clone());
        }
        if self.newest_card.is_none() {
            self.newest_card = Some(load::newest_rates(self.store)?);
        }
        Ok(self.newest_card.clone().unwrap_or_default())
    }

    /// The card of a version that there is.
    pub(in crate::ledger::book) fn rates_of(&mut self, version: u64) -> Result<RateCard, LedgerError> {
        self.cards.of(self.store, version)
    }

    /// The newest version of the rate card that was made before this time, in µs since 1970.
    pub(in crate::ledger::book) fn rates_version_before(&mut self, us: i64) -> Result<Option<u64>, LedgerError> {
        load::rates_version_before(self.store, us)
    }

    pub(in crate::ledger::book) fn put_rate_card(&mut self, card: RateCard, by: &str) {
        self.new_cards.push((card, by.to_owned()));
    }

    /// Epoch and settings.
    pub(in crate::ledger::book) fn whole(&mut self) -> Result<&Whole, LedgerError> {
        if let Some(new) = self.new_settings.last() {
            return Ok(new);
        }
        Ok(match &mut self.whole {
            Some(known) => known,
            none => none.insert(load::whole(self.store)?),
        })
    }

    pub(in crate::ledger::book) fn put_settings(&mut self, whole: Whole) {
        self.new_settings.push(whole);
    }

    pub(in crate::ledger::book) fn put_epoch(&mut self, epoch: Epoch) {
        for whole in self.whole.iter_mut().chain(&mut self.new_settings) {
            whole.epoch = epoch;
        }
        self.new_epoch = Some(epoch);
    }
}
