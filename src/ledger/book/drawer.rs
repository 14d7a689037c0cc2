//! Rows of one kind: as they were taken out, what became of them, and the way back.

use std::collections::HashMap;

/// A row as it is now, and whether it has to be written.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    pub(super) row: T,
    changed: bool,
}

/// One kind of rows by their keys.
#[derive(Debug)]
pub(super) struct Drawer<K, T> {
    pub(super) slots: HashMap<K, Slot<T>>,
    undo: Vec<(K, Option<Slot<T>>)>,
}

impl<K, T> Default for Drawer<K, T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), undo: Vec::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, T> Drawer<K, T> {
    pub(super) fn get(&self, key: &K) -> Option<&T> {
        self.slots.get(key).map(|slot| &slot.row)
    }

    pub(super) fn take_in(&mut self, key: K, row: T) {
        self.slots.entry(key).or_insert(Slot { row, changed: false });
    }

    pub(super) fn put(&mut self, key: K, row: T) {
        let before = self.slots.insert(key.clone(), Slot { row, changed: true });
        self.undo.push((key, before));
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
        let (changed, others): (Vec<_>, Vec<_>) = self.slots.into_values().partition(|slot| slot.changed);
        let rows = |slots: Vec<Slot<T>>| slots.into_iter().map(|slot| slot.row).collect();
        (rows(changed), rows(others))
    }
}
