//! The entries that a transaction appends: each names the one of its attempt before it.

use std::collections::HashMap;

use uuid::Uuid;

use super::rows::Entry;

/// Entries in their order.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// With their numbers within their accounts.
    entries: Vec<(i64, Entry)>,
    /// The newest of each attempt that has some here.
    last: HashMap<Uuid, i64>,
    /// So many belong to operations before the one under way.
    mark: usize,
}

impl Journal {
    /// Appends one. `stored_last` is the newest of its attempt in the store, zero for none, where it has an attempt that is
    /// in the books.
    pub(super) fn append(&mut self, number: i64, mut entry: Entry, stored_last: Option<i64>) {
        if let Some((attempt, stored)) = entry.attempt.zip(stored_last) {
            let last = self.last.insert(attempt, number).unwrap_or(stored);
            entry.previous = (last > 0).then_some(last);
        }
        self.entries.push((number, entry));
    }

    /// Those of an attempt.
    pub(super) fn of(&self, attempt: Uuid) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry).filter(move |entry| entry.attempt == Some(attempt))
    }

    /// Another operation begins: what was appended before stays.
    pub(super) fn mark(&mut self) {
        self.mark = self.entries.len();
    }

    /// As at the last mark.
    pub(super) fn undo(&mut self) {
        for (_, entry) in self.entries.drain(self.mark..).rev() {
            if let Some(last) = entry.attempt.and_then(|attempt| self.last.get_mut(&attempt)) {
                *last = entry.previous.unwrap_or(0);
            }
        }
    }

    /// All of them, and the newest of each attempt.
    pub(super) fn into_parts(self) -> (Vec<(i64, Entry)>, HashMap<Uuid, i64>) {
        (self.entries, self.last)
    }
}
