//! The newest rate card, and what holds for the ledger as a whole: each is read once in a transaction.

use super::{Shelf, load};
use crate::domain::rating::RateCard;
use crate::ledger::LedgerError;
use crate::ledger::book::rows::Epoch;
use crate::ledger::settings::KeptSettings;

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

    fn whole(&mut self) -> Result<&mut (Epoch, KeptSettings), LedgerError> {
        Ok(match &mut self.whole {
            Some(known) => known,
            none => none.insert(load::whole::whole(self.store)?),
        })
    }

    /// Zeros for a ledger that was never restored.
    pub(in crate::ledger::book) fn epoch(&mut self) -> Result<Epoch, LedgerError> {
        match self.new_epoch {
            Some(new) => Ok(new),
            None => Ok(self.whole()?.0),
        }
    }

    pub(in crate::ledger::book) fn put_epoch(&mut self, epoch: Epoch) {
        self.new_epoch = Some(epoch);
    }

    /// As an administrator set them last, also within this transaction.
    pub(in crate::ledger::book) fn settings(&mut self) -> Result<&KeptSettings, LedgerError> {
        if self.new_settings.is_empty() {
            return Ok(&self.whole()?.1);
        }
        let missing = || LedgerError::Broken("the ledger's settings are lost".to_owned());
        self.new_settings.last().ok_or_else(missing)
    }

    pub(in crate::ledger::book) fn put_settings(&mut self, settings: KeptSettings) {
        self.new_settings.push(settings);
    }
}
