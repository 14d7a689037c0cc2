//! The rows that a transaction has taken out of the store, what became of them, and how an operation that fails is undone.

mod jobs;
mod lookups;
mod silence;
mod whole;

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::Paid;
use super::drawer::{Drawer, OfAccount};
use super::journal::Journal;
use super::kept::Kept;
use super::rows::{Account, Alert, Attempt, Entry, Epoch, Grant, Job, Key, Period, Reservation};
use super::steady::Steady;
use super::written::Changes;
use crate::domain::book::Source;
use crate::domain::rating::RateCard;
use crate::domain::units::Nanocredits;
use crate::ledger::job_name::JobKey;
use crate::ledger::protocol::AttemptIdentity;
use crate::ledger::settings::KeptSettings;
use crate::ledger::store::{Store, load};
use crate::ledger::{LedgerError, receipt_text::ReceiptText};

/// A transaction marks so much of what is over, whatever its account.
const MARKED_MAX: i64 = 256;

/// The rows of one transaction.
pub(super) struct Shelf<'a> {
    store: &'a mut dyn Store,
    /// Accounts that another session keeps locked.
    busy: HashSet<String>,
    accounts: Drawer<String, Account>,
    /// New ones, and whose they are: see [`crate::domain::user_name::folded`].
    names: Vec<(String, String)>,
    periods: Drawer<OfAccount, Period>,
    grants: Drawer<OfAccount, Grant>,
    granted: HashMap<String, Vec<i64>>,
    jobs: Drawer<JobKey, Box<Job>>,
    attempts: Drawer<Uuid, Box<Attempt>>,
    /// What of them most reports leave as it is, as they were taken out.
    steady: HashMap<Uuid, Steady>,
    /// From the transaction before, not taken out yet.
    kept: Kept,
    reservations: Drawer<Uuid, Reservation>,
    identities: Vec<AttemptIdentity>,
    receipts: Vec<(Uuid, ReceiptText)>,
    swept: Vec<String>,
    /// So many this transaction may mark yet.
    marks_left: i64,
    journal: Journal,
    alerts: Vec<Alert>,
    once: Vec<(String, String, String)>,
    /// As it is stored.
    newest_card: Option<RateCard>,
    cards: load::Cards,
    new_cards: Vec<(RateCard, String)>,
    keys: Drawer<String, Key>,
    used_keys: Vec<String>,
    /// As both are stored.
    whole: Option<(Epoch, KeptSettings)>,
    new_settings: Vec<KeptSettings>,
    new_epoch: Option<Epoch>,
    /// How much of the lists above belongs to operations before the one under way.
    marks: [usize; 7],
}

impl<'a> Shelf<'a> {
    pub(super) fn new(store: &'a mut dyn Store, kept: Kept, busy: HashSet<String>) -> Self {
        Self {
            store,
            busy,
            accounts: Drawer::default(),
            names: Vec::new(),
            periods: Drawer::default(),
            grants: Drawer::default(),
            granted: HashMap::new(),
            jobs: Drawer::default(),
            attempts: Drawer::default(),
            steady: HashMap::new(),
            kept,
            reservations: Drawer::default(),
            identities: Vec::new(),
            receipts: Vec::new(),
            swept: Vec::new(),
            marks_left: MARKED_MAX,
            journal: Journal::default(),
            alerts: Vec::new(),
            once: Vec::new(),
            newest_card: None,
            cards: load::Cards::default(),
            new_cards: Vec::new(),
            keys: Drawer::default(),
            used_keys: Vec::new(),
            whole: None,
            new_settings: Vec::new(),
            new_epoch: None,
            marks: [0; 7],
        }
    }

    /// Another operation begins: what was done before stays.
    pub(super) fn mark(&mut self) {
        self.accounts.mark();
        self.periods.mark();
        self.grants.mark();
        self.jobs.mark();
        self.attempts.mark();
        self.reservations.mark();
        self.keys.mark();
        self.journal.mark();
        let [identities, receipts, once] = [self.identities.len(), self.receipts.len(), self.once.len()];
        let [cards, alerts, names] = [self.new_cards.len(), self.alerts.len(), self.names.len()];
        self.marks = [identities, receipts, once, cards, alerts, names, self.new_settings.len()];
    }

    /// Forgets what the operation under way has done.
    pub(super) fn undo(&mut self) {
        self.accounts.undo();
        self.periods.undo();
        self.grants.undo();
        self.jobs.undo();
        self.attempts.undo();
        self.reservations.undo();
        self.keys.undo();
        self.journal.undo();
        let [identities, receipts, once, cards, alerts, names, settings] = self.marks;
        self.identities.truncate(identities);
        self.receipts.truncate(receipts);
        self.once.truncate(once);
        self.alerts.truncate(alerts);
        self.names.truncate(names);
        self.new_cards.truncate(cards);
        self.new_settings.truncate(settings);
        self.granted.clear();
        // Its marks were undone as well.
        self.swept.clear();
    }

    /// Takes in what these attempts concern, in two questions instead of two for each.
    pub(super) fn prefetch(&mut self, attempts: &[Uuid]) -> Result<(), LedgerError> {
        self.take_in_attempts(attempts)?;
        let found = attempts.iter().filter_map(|id| self.attempts.get(id));
        let mut jobs: Vec<JobKey> = found.map(|attempt| attempt.job_key()).collect();
        jobs.sort_unstable();
        jobs.dedup();
        self.take_in_jobs(&jobs)
    }

    fn take_in_attempts(&mut self, ids: &[Uuid]) -> Result<(), LedgerError> {
        for attempt in self.kept.attempts(self.store, ids, &mut self.cards)? {
            self.steady.entry(attempt.id).or_insert_with(|| Steady::of(&attempt));
            self.attempts.take_in(attempt.id, attempt);
        }
        Ok(())
    }

    /// Another revision for each account of which something has to be written.
    fn revise(&mut self) -> Result<(), LedgerError> {
        let of_attempts = self.attempts.changed().map(|attempt| &attempt.owner);
        let owners = of_attempts.chain(self.jobs.changed().map(|job| &job.key.owner));
        let owners: BTreeSet<&String> = owners.chain(self.accounts.changed().map(|account| &account.owner)).collect();
        for owner in owners.into_iter().cloned().collect::<Vec<_>>() {
            self.account(&owner)?;
            self.change_account(&owner, |account| account.revision = account.revision.saturating_add(1));
        }
        Ok(())
    }

    pub(super) fn changes(mut self, now_us: i64) -> Result<Changes, LedgerError> {
        self.revise()?;
        let text = |error: serde_json::Error| LedgerError::Broken(error.to_string());
        let identity =
            |identity: &AttemptIdentity| Ok((identity.attempt, serde_json::to_string(identity).map_err(text)?));
        let first = RateCard::default();
        // The card that a ledger starts with becomes a row of its own with the first change.
        let new = self.new_cards.iter().any(|(card, _)| card.version == first.version.saturating_add(1));
        let cards = new.then(|| (first, "jobmeter".to_owned(), 0)).into_iter();
        let cards = cards.chain(self.new_cards.iter().map(|(card, by)| (card.clone(), by.clone(), now_us)));
        let card = |(card, by, since_us): (RateCard, String, i64)| {
            Ok((card.version, serde_json::to_string(&card).map_err(text)?, since_us, by))
        };
        let steady = self.steady;
        let (entries, last_entries) = self.journal.into_parts();
        let chained = |mut attempt: Box<Attempt>| {
            attempt.last_entry = last_entries.get(&attempt.id).copied().unwrap_or(attempt.last_entry);
            attempt
        };
        let extent = |attempt: Box<Attempt>| (Steady::extent(steady.get(&attempt.id), &attempt), attempt);
        let (attempts, unchanged) = self.attempts.into_parts();
        let (jobs, unchanged_jobs) = self.jobs.into_parts();
        let mut kept = self.kept;
        kept.add(unchanged.into_iter(), unchanged_jobs.into_iter(), self.accounts.rows());
        Ok(Changes {
            now_us,
            identities: self.identities.iter().map(identity).collect::<Result<_, LedgerError>>()?,
            rate_cards: cards.map(card).collect::<Result<_, LedgerError>>()?,
            accounts: self.accounts.into_changed(),
            names: self.names,
            periods: self.periods.into_changed(),
            grants: self.grants.into_changed(),
            jobs,
            attempts: attempts.into_iter().map(chained).map(extent).collect(),
            kept,
            reservations: self.reservations.into_changed(),
            receipts: self.receipts,
            entries,
            alerts: self.alerts,
            once: self.once,
            keys: self.keys.into_changed(),
            used_keys: self.used_keys,
            settings: self.new_settings,
            epoch: self.new_epoch,
        })
    }

    pub(super) fn account(&mut self, owner: &str) -> Result<Option<&Account>, LedgerError> {
        if self.busy.contains(owner) {
            return Err(LedgerError::Locked(owner.to_owned()));
        }
        if self.accounts.get(owner).is_none()
            && let Some(row) = load::account(self.store, owner)?
        {
            self.accounts.take_in(owner.to_owned(), row);
        }
        Ok(self.accounts.get(owner))
    }

    pub(super) fn kept_account(&self, owner: &str) -> Option<&Account> {
        self.accounts.get(owner)
    }

    pub(super) fn put_account(&mut self, account: Account) {
        self.accounts.put(account.owner.clone(), account);
    }

    /// An account is never put back from a copy, whose sums and count of entries are old.
    pub(super) fn change_account(&mut self, owner: &str, change: impl FnOnce(&mut Account)) {
        self.accounts.change(owner, change);
    }

    pub(super) fn period(&mut self, owner: &str, start: i64) -> Result<Option<&Period>, LedgerError> {
        if self.periods.get(&(owner, start)).is_none()
            && let Some(row) = load::period(self.store, owner, start)?
        {
            self.periods.take_in(OfAccount::new(owner, start), row);
        }
        Ok(self.periods.get(&(owner, start)))
    }

    pub(super) fn put_period(&mut self, period: Period) {
        self.periods.put(OfAccount::new(&period.owner, period.start), period);
    }

    pub(super) fn change_period(&mut self, owner: &str, start: i64, change: impl FnOnce(&mut Period)) {
        self.periods.change(&(owner, start), change);
    }

    /// From when to when the periods of an account last that overlap these seconds.
    pub(super) fn spans(&mut self, owner: &str, start: i64, ends: i64) -> Result<Vec<(i64, i64)>, LedgerError> {
        let mut spans = load::spans(self.store, owner, start, ends)?;
        let here = self.periods.rows().filter(|of| of.owner == owner && of.start < ends && of.ends > start);
        spans.extend(here.map(|period| (period.start, period.ends)));
        Ok(spans)
    }

    /// Those of which something is held or left at this time, by their numbers.
    pub(super) fn grants(&mut self, owner: &str, now_s: i64) -> Result<Vec<Grant>, LedgerError> {
        if !self.granted.contains_key(owner) {
            let found = load::grants(self.store, owner, now_s)?;
            let mut ids: Vec<i64> = found.iter().map(|grant| grant.id).collect();
            // Made by this transaction.
            ids.extend(self.grants.keys().filter(|key| key.owner == owner).map(|key| key.number));
            ids.sort_unstable();
            ids.dedup();
            for grant in found {
                self.grants.take_in(OfAccount::new(owner, grant.id), grant);
            }
            self.granted.insert(owner.to_owned(), ids);
        }
        let ids = self.granted.get(owner).map(Vec::as_slice).unwrap_or_default();
        let grants = ids.iter().filter_map(|id| self.grants.get(&(owner, *id)));
        Ok(grants.filter(|grant| grant.held > Nanocredits::ZERO || grant.rest() > Nanocredits::ZERO).cloned().collect())
    }

    pub(super) fn grant(&mut self, owner: &str, id: i64) -> Result<Option<&Grant>, LedgerError> {
        if self.grants.get(&(owner, id)).is_none()
            && let Some(row) = load::grant(self.store, owner, id)?
        {
            self.grants.take_in(OfAccount::new(owner, id), row);
            // It may become one of those of which something is left.
            self.granted.remove(owner);
        }
        Ok(self.grants.get(&(owner, id)))
    }

    pub(super) fn put_grant(&mut self, grant: Grant) {
        self.granted.remove(&grant.owner);
        self.grants.put(OfAccount::new(&grant.owner, grant.id), grant);
    }

    pub(super) fn change_grant(&mut self, owner: &str, id: i64, change: impl FnOnce(&mut Grant)) {
        self.grants.change(&(owner, id), change);
    }

    pub(super) fn new_grant_id(&mut self, owner: &str) -> Result<i64, LedgerError> {
        let here = self.grants.keys().filter(|key| key.owner == owner).map(|key| key.number).max().unwrap_or(0);
        Ok(load::new_grant_id(self.store, owner)?.max(here.saturating_add(1)))
    }

    pub(super) fn attempt(&mut self, id: Uuid) -> Result<Option<Attempt>, LedgerError> {
        if self.attempts.get(&id).is_none() {
            self.take_in_attempts(&[id])?;
        }
        Ok(self.attempts.get(&id).map(|attempt| (**attempt).clone()))
    }

    /// As it was kept last, which is what its account's and its job's sums have of it.
    pub(super) fn kept(&self, id: Uuid) -> Option<&Attempt> {
        self.attempts.get(&id).map(Box::as_ref)
    }

    pub(super) fn put_attempt(&mut self, attempt: Attempt) {
        self.attempts.put(attempt.id, Box::new(attempt));
    }

    pub(super) fn reservation(&mut self, id: Uuid) -> Result<Option<Reservation>, LedgerError> {
        if self.reservations.get(&id).is_none()
            && let Some(row) = load::reservation(self.store, id, &mut self.cards)?
        {
            self.reservations.take_in(id, row);
        }
        Ok(self.reservations.get(&id).cloned())
    }

    pub(super) fn put_reservation(&mut self, reservation: Reservation) {
        self.reservations.put(reservation.id, reservation);
    }

    pub(super) fn put_identity(&mut self, identity: AttemptIdentity) {
        self.identities.push(identity);
    }

    pub(super) fn put_receipt(&mut self, attempt: Uuid, receipt: ReceiptText) {
        self.receipts.push((attempt, receipt));
    }

    /// Also by entries that are not written yet.
    pub(super) fn paid(&mut self, attempt: &Attempt) -> Result<Vec<Paid>, LedgerError> {
        let mut paid = load::paid(self.store, attempt)?;
        for entry in self.journal.of(attempt.id).filter(|entry| matches!(entry.kind, "charge" | "correct")) {
            let same = paid.iter().position(|paid| (paid.period, paid.source.0) == (entry.period, entry.source));
            let mut part = same.map_or(
                Paid { period: entry.period, source: Source(entry.source), amount: Nanocredits::ZERO, day: entry.day },
                |at| paid.remove(at),
            );
            part.amount = part.amount.saturating_add(entry.amount);
            part.day = part.day.max(entry.day);
            paid.insert(0, part);
        }
        Ok(paid)
    }

    pub(super) fn put_alert(&mut self, alert: Alert) {
        self.alerts.push(alert);
    }

    pub(super) fn key(&mut self, id: &str) -> Result<Option<Key>, LedgerError> {
        if self.keys.get(id).is_none()
            && let Some(row) = load::keys(self.store, Some(id))?.pop()
        {
            self.keys.take_in(id.to_owned(), row);
        }
        Ok(self.keys.get(id).cloned())
    }

    pub(super) fn put_key(&mut self, key: Key) {
        self.keys.put(key.id.clone(), key);
    }

    /// That it was used is written down, where it is not in this transaction already.
    pub(super) fn put_key_use(&mut self, id: &str) {
        if !self.used_keys.iter().any(|known| known == id) {
            self.used_keys.push(id.to_owned());
        }
    }

    pub(super) fn seen_us(&mut self) -> Result<Option<i64>, LedgerError> {
        load::seen_us(self.store)
    }

    /// Appends an entry, with the next number of its account, which must have been read, behind the last one of its
    /// attempt. An attempt that is not in the books yet has none.
    pub(super) fn append(&mut self, entry: Entry) {
        let mut number = 0;
        self.change_account(&entry.owner.clone(), |account| {
            account.entries = account.entries.saturating_add(1);
            number = account.entries;
        });
        let stored_last = entry.attempt.and_then(|id| Some(self.attempts.get(&id)?.last_entry));
        if let Some(attempt) = &entry.attempt {
            self.attempts.touch(attempt);
        }
        self.journal.append(number, entry, stored_last);
    }
}
