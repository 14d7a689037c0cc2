//! What is looked up beside the rows: whose a name is, what was answered under a key, and what entries say.

use super::{Shelf, load};
use crate::domain::user_name::folded;
use crate::ledger::LedgerError;

impl Shelf<'_> {
    /// Whose the name is, where it is only written in another way.
    pub(in crate::ledger::book) fn owner_named(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        let folded = folded(name);
        match self.names.iter().find(|(known, _)| *known == folded) {
            Some((_, owner)) => Ok(Some(owner.clone())),
            None => load::owner_named(self.store, &folded),
        }
    }

    /// Nobody else gets a name that is only written in another way.
    pub(in crate::ledger::book) fn put_name(&mut self, name: &str) {
        self.names.push((folded(name), name.to_owned()));
    }

    pub(in crate::ledger::book) fn once(&mut self, key: &str) -> Result<Option<(String, String)>, LedgerError> {
        let here = self.once.iter().find(|(known, _, _)| known == key);
        match here {
            Some((_, body, answer)) => Ok(Some((body.clone(), answer.clone()))),
            None => load::once(self.store, key),
        }
    }

    pub(in crate::ledger::book) fn put_once(&mut self, key: String, body: String, answer: String) {
        self.once.push((key, body, answer));
    }

    /// Of periods that begin at `from_s` or later, since the account was repaired last. Of this transaction there is nothing: its clock is
    /// not ahead.
    pub(in crate::ledger::book) fn booked_ahead(
        &mut self,
        owner: &str,
        from_s: i64,
    ) -> Result<load::Ahead, LedgerError> {
        load::booked_ahead(self.store, owner, from_s)
    }
}
