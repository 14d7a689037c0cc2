//! Rows of one kind: as they were taken out, what became of them, and the way back.

use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

use crate::ledger::job_name::JobKey;

/// A row as it is now, and whether it has to be written.
#[derive(Clone, Debug)]
struct Slot<T> {
    row: T,
    changed: bool,
    /// The operation that last noted how it was before.
    noted_by: u64,
}

/// One kind of rows by their keys.
#[derive(Debug)]
pub(super) struct Drawer<K, T> {
    slots: HashMap<K, Slot<T>>,
    /// How each row that the operation under way changed was before; nothing where there was none.
    undo: Vec<(K, Option<Slot<T>>)>,
    operation: u64,
}

/// The key of a row that an account has several of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OfAccount {
    pub(super) owner: String,
    /// A period's start, or a grant's number.
    pub(super) number: i64,
}

impl OfAccount {
    pub(super) fn new(owner: &str, number: i64) -> Self {
        Self { owner: owner.to_owned(), number }
    }
}

/// Looked up without a text of its own; hashes as the derived one does.
impl Equivalent<OfAccount> for (&str, i64) {
    fn equivalent(&self, key: &OfAccount) -> bool {
        key.owner == self.0 && key.number == self.1
    }
}

/// A job, looked up without texts of its own; hashes as the derived one does, in the order of the fields.
impl Equivalent<JobKey> for (&str, &str, &str) {
    fn equivalent(&self, key: &JobKey) -> bool {
        key.owner == self.0 && key.principal == self.1 && key.id == self.2
    }
}

impl<K, T> Default for Drawer<K, T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), undo: Vec::new(), operation: 1 }
    }
}

impl<K: Clone + Eq + Hash, T> Drawer<K, T> {
    pub(super) fn get(&self, key: &(impl Hash + Equivalent<K> + ?Sized)) -> Option<&T> {
        self.slots.get(key).map(|slot| &slot.row)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.keys()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &T> {
        self.slots.values().map(|slot| &slot.row)
    }

    /// Those that have to be written.
    pub(super) fn changed(&self) -> impl Iterator<Item = &T> {
        self.slots.values().filter(|slot| slot.changed).map(|slot| &slot.row)
    }

    /// As it is stored, where it is not here already.
    pub(super) fn take_in(&mut self, key: K, row: T) {
        self.slots.entry(key).or_insert(Slot { row, changed: false, noted_by: 0 });
    }

    pub(super) fn put(&mut self, key: K, row: T) {
        let slot = Slot { row, changed: true, noted_by: self.operation };
        match self.slots.get_mut(&key) {
            Some(there) => {
                let before = std::mem::replace(there, slot);
                if before.noted_by != self.operation {
                    self.undo.push((key, Some(before)));
                }
            }
            None => {
                self.undo.push((key.clone(), None));
                self.slots.insert(key, slot);
            }
        }
    }

    /// Changes a row that is here, where it lies.
    pub(super) fn change(&mut self, key: &(impl Hash + Equivalent<K> + ?Sized), change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        if let Some((key, slot)) = self.slots.get_key_value_mut(key) {
            if slot.noted_by != self.operation {
                self.undo.push((key.clone(), Some(slot.clone())));
                slot.noted_by = self.operation;
            }
            change(&mut slot.row);
            slot.changed = true;
        }
    }

    /// It has to be written, whatever becomes of it.
    pub(super) fn touch(&mut self, key: &K) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.changed = true;
        }
    }

    /// Another operation begins: what was done before stays.
    pub(super) fn mark(&mut self) {
        self.undo.clear();
        self.operation = self.operation.saturating_add(1);
    }

    /// As at the last mark.
    pub(super) fn undo(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(slot) => self.slots.insert(key, slot),
                None => self.slots.remove(&key),
            };
        }
    }

    pub(super) fn into_changed(self) -> Vec<T> {
        self.into_parts().0
    }

    /// Those that have to be written, and the others.
    pub(super) fn into_parts(self) -> (Vec<T>, Vec<T>) {
        let (mut changed, mut others) = (Vec::with_capacity(self.slots.len()), Vec::new());
        for slot in self.slots.into_values() {
            if slot.changed { changed.push(slot.row) } else { others.push(slot.row) }
        }
        (changed, others)
    }
}
