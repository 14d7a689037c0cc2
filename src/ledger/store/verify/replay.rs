//! Every entry of every account once more, one after the other: what each source had then, and what the books say now.

use std::collections::{BTreeMap, HashMap};

use crate::domain::book::{LIMIT_DEFAULT, Source};
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::store::row::{Row, Value};
use crate::ledger::views::Verification;

/// Entries are read so many at a time.
const PAGE: i64 = 10_000;
/// Whoever has so many has to be restored, and need not be told of more.
pub(super) const PROBLEMS_MAX: usize = 1_000;
/// What the books say of so many accounts is asked for at a time.
const ACCOUNTS: usize = 50;
/// Where an account has no limit.
const UNLIMITED: i128 = i128::MAX;

/// What attempts and reservations hold, by owner, period (zero for grants) and source.
pub(super) type Held = BTreeMap<(String, i64, i64), Nanocredits>;

/// Asks the store for rows.
type Query<'a> = dyn FnMut(&str, &[Value]) -> Result<Vec<Row>, LedgerError> + 'a;

/// A source, or a period, as far as it was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    given: i128,
    charged: i128,
    taken: i128,
    spent: i128,
    corrected: i128,
    /// Of what was taken, by corrections of the allowance: before there was a rule they took more than it had.
    adjusted: i128,
}

/// An account, as far as it was replayed.
#[derive(Debug, Default)]
struct Account {
    owner: String,
    periods: BTreeMap<i64, Sums>,
    grants: BTreeMap<i64, Sums>,
    debt: i128,
    /// The period in which each limit was set, and the limit.
    limits: Vec<(i64, i128)>,
    problems: Vec<String>,
}

struct Entry {
    number: i64,
    kind: String,
    period: i64,
    source: i64,
    amount: i128,
}

/// Replays all entries, and compares what the rows say.
pub(super) fn replay(query: &mut Query<'_>, found: &mut Verification, held: &Held) -> Result<(), LedgerError> {
    let (mut account, mut whole) = (Account::default(), Vec::new());
    let mut last = (String::new(), 0);
    loop {
        let sql = "SELECT owner, number, kind, period, source, amount FROM entry WHERE (owner, number) > ($1, $2) ORDER BY owner, \
                   number LIMIT $3";
        let rows = query(sql, &[last.0.as_str().into(), last.1.into(), PAGE.into()])?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < PAGE);
        for mut row in rows {
            let (owner, entry) = (row.text()?, read(&mut row)?);
            if owner != account.owner {
                whole.push(std::mem::take(&mut account));
                account.owner.clone_from(&owner);
            }
            if whole.len() >= ACCOUNTS {
                compare(query, std::mem::take(&mut whole), found, held)?;
            }
            last = (owner, entry.number);
            account.add(&entry);
        }
        if is_last || found.problems.len() > PROBLEMS_MAX {
            whole.push(account);
            compare(query, whole, found, held)?;
            return of_none(query, found);
        }
    }
}

fn read(row: &mut Row) -> Result<Entry, LedgerError> {
    Ok(Entry {
        number: row.int()?,
        kind: row.text()?,
        period: row.int()?,
        source: row.int()?,
        amount: i128::from(row.int()?),
    })
}

/// Accounts without entries, whose rows must say that nothing happened.
fn of_none(query: &mut Query<'_>, found: &mut Verification) -> Result<(), LedgerError> {
    let sql = "SELECT owner, start FROM period p WHERE (charged <> 0 OR taken <> 0 OR spent <> 0 OR corrected <> 0) AND NOT EXISTS \
               (SELECT 1 FROM entry e WHERE e.owner = p.owner) ORDER BY owner, start LIMIT 10";
    for mut row in query(sql, &[])? {
        let (owner, start) = (row.text()?, row.int()?);
        found.problems.push(format!("{owner}, period {start}: something is booked, and there is no entry"));
    }
    Ok(())
}

impl Account {
    fn add(&mut self, entry: &Entry) {
        let &Entry { number, period, source, amount, .. } = entry;
        let source = Source(source);
        let of_grant = source != Source::ALLOWANCE && source != Source::DEBT;
        let mut moved = Sums::default();
        match entry.kind.as_str() {
            "charge" | "correct" | "tokens" => {
                self.periods.entry(period).or_default().spent += amount;
                moved.charged = amount;
            }
            "adjust" if amount < 0 => {
                let of_period = self.periods.entry(period).or_default();
                of_period.corrected += amount;
                of_period.adjusted += if source == Source::ALLOWANCE { -amount } else { 0 };
                moved.taken = -amount;
            }
            // What gave to the allowance itself, before a correction was a grant.
            "adjust" if !of_grant => moved.taken = -amount,
            "grant" | "adjust" => moved.given = amount,
            "carry" => {
                self.periods.entry(period).or_default().taken += amount;
                moved.given = amount;
            }
            "unused" if of_grant => moved.given = amount,
            "unused" => self.debt -= amount,
            "repay" => {
                moved.taken = amount;
                self.debt -= amount;
            }
            "debt" => {
                self.periods.entry(period).or_default().corrected -= amount;
                self.debt += amount;
            }
            "brought" => self.periods.entry(period).or_default().corrected -= amount,
            // The limit that was set while the account was ahead counts from here on.
            "repair" => self.limits.extend(self.limits.last().map(|(_, limit)| (period, *limit))),
            "limit" => self.limits.push((period, if amount < 0 { UNLIMITED } else { amount })),
            _ => return,
        }
        self.put(source, period, &moved, entry.kind == "adjust");
        let below = if of_grant { self.grants.get(&source.0).is_some_and(Sums::is_below_zero) } else { self.debt < 0 };
        if below {
            self.problems.push(format!("{}: with the entry {number} more is used than was there", self.owner));
        }
    }

    fn put(&mut self, source: Source, period: i64, moved: &Sums, may_owe: bool) {
        let sums = match source {
            Source::ALLOWANCE => self.periods.entry(period).or_default(),
            Source::DEBT => {
                self.debt += if may_owe { moved.taken } else { 0 };
                return;
            }
            Source(id) => self.grants.entry(id).or_default(),
        };
        sums.given += moved.given;
        sums.charged += moved.charged;
        sums.taken += moved.taken;
    }

    /// The highest limit that counted in a period, or was to count in it while slices of it were promised in the one before.
    fn highest(&self, before: i64, period: i64) -> i128 {
        let first =
            self.limits.iter().rfind(|(since, _)| *since < before).map_or(LIMIT_DEFAULT.0.into(), |(_, limit)| *limit);
        let later = self.limits.iter().filter(|(since, _)| (before..=period).contains(since));
        later.map(|(_, limit)| *limit).fold(first, i128::max)
    }
}

impl Sums {
    fn is_below_zero(&self) -> bool {
        self.charged < 0 || self.charged + self.taken > self.given
    }
}

/// Rows by the account that stands first in each.
fn by_account(query: &mut Query<'_>, sql: &str, owners: &[String]) -> Result<HashMap<String, Vec<Row>>, LedgerError> {
    let mut rows: HashMap<String, Vec<Row>> = HashMap::new();
    for mut row in query(sql, &[Value::Texts(owners.to_vec())])? {
        rows.entry(row.text()?).or_default().push(row);
    }
    Ok(rows)
}

/// What the rows say is what was replayed.
fn compare(
    query: &mut Query<'_>,
    accounts: Vec<Account>,
    found: &mut Verification,
    held: &Held,
) -> Result<(), LedgerError> {
    let owners: Vec<String> = accounts.iter().map(|account| account.owner.clone()).collect();
    let mut debts = by_account(query, "SELECT owner, debt FROM account WHERE owner = ANY($1)", &owners)?;
    let sql = "SELECT owner, start, ends, credit_limit, taken, charged, held, spent, corrected FROM period WHERE owner = ANY($1) ORDER BY \
               owner, start";
    let mut of_periods = by_account(query, sql, &owners)?;
    let sql =
        "SELECT owner, id, amount, charged, taken, held FROM credit_grant WHERE owner = ANY($1) ORDER BY owner, id";
    let mut of_grants = by_account(query, sql, &owners)?;
    for mut account in accounts {
        found.problems.append(&mut account.problems);
        let owner = account.owner.as_str();
        let of = |rows: &mut HashMap<String, Vec<Row>>| rows.remove(owner).unwrap_or_default();
        for mut row in of(&mut debts) {
            let debt = i128::from(row.int()?);
            if debt != account.debt {
                let (debt, said) = (told(debt), told(account.debt));
                found.problems.push(format!("{owner}: {debt} credits are booked as owed, the entries say {said}"));
            }
        }
        periods(of(&mut of_periods), &account, found, held)?;
        grants(of(&mut of_grants), &account, found, held)?;
    }
    Ok(())
}

fn periods(rows: Vec<Row>, account: &Account, found: &mut Verification, held: &Held) -> Result<(), LedgerError> {
    let owner = account.owner.as_str();
    let mut before: Option<(i64, i64)> = None;
    for mut row in rows {
        let (start, ends, limit) = (row.int()?, row.int()?, row.maybe_int()?);
        let mut next = || row.int().map(i128::from);
        let [taken, charged, booked, spent, corrected] = [next()?, next()?, next()?, next()?, next()?];
        found.accounts += 1;
        let mut wrong = |what: String| found.problems.push(format!("{owner}, period {start}: {what}"));
        let said = account.periods.get(&start).copied().unwrap_or_default();
        let kept = Sums { charged, taken, spent, corrected, ..said };
        differences(&kept, &said, &mut wrong);
        let of_attempts = held.get(&(owner.to_owned(), start, 0)).map_or(0, |held| i128::from(held.0));
        if booked != of_attempts {
            let (booked, of_attempts) = (told(booked), told(of_attempts));
            wrong(format!("{booked} credits are booked as held, attempts and reservations hold {of_attempts}"));
        }
        let spendable =
            limit.map_or(UNLIMITED, i128::from).max(account.highest(before.map_or(start, |(start, _)| start), start));
        if charged + taken + booked - said.adjusted > spendable {
            let [charged, taken, booked, spendable] = [charged, taken, booked, spendable].map(told);
            wrong(format!(
                "{charged} charged, {taken} taken and {booked} held are more than the {spendable} that it had"
            ));
        }
        if before.is_some_and(|(_, ends)| ends > start) {
            wrong("it overlaps the period before it".to_owned());
        }
        before = Some((start, ends));
    }
    Ok(())
}

fn grants(rows: Vec<Row>, account: &Account, found: &mut Verification, held: &Held) -> Result<(), LedgerError> {
    let owner = account.owner.as_str();
    for mut row in rows {
        let id = row.int()?;
        let mut next = || row.int().map(i128::from);
        let [given, charged, taken, booked] = [next()?, next()?, next()?, next()?];
        let mut wrong = |what: String| found.problems.push(format!("grant {id} of {owner}: {what}"));
        let said = account.grants.get(&id).copied().unwrap_or_default();
        differences(&Sums { given, charged, taken, ..said }, &said, &mut wrong);
        let of_attempts = held.get(&(owner.to_owned(), 0, id)).map_or(0, |held| i128::from(held.0));
        if booked != of_attempts {
            let (booked, of_attempts) = (told(booked), told(of_attempts));
            wrong(format!("{booked} credits are booked as held, attempts and reservations hold {of_attempts}"));
        }
        if charged + taken + booked > given {
            let [charged, taken, booked, given] = [charged, taken, booked, given].map(told);
            wrong(format!("{charged} charged, {taken} taken and {booked} held exceed {given}"));
        }
    }
    Ok(())
}

fn differences(kept: &Sums, said: &Sums, wrong: &mut impl FnMut(String)) {
    let pairs = [
        ("given", kept.given, said.given),
        ("charged", kept.charged, said.charged),
        ("taken", kept.taken, said.taken),
        ("used", kept.spent, said.spent),
        ("corrected", kept.corrected, said.corrected),
    ];
    for (what, kept, said) in pairs.into_iter().filter(|(_, kept, said)| kept != said) {
        wrong(format!("{} credits are booked as {what}, the entries say {}", told(kept), told(said)));
    }
}

/// For people, whatever its size.
fn told(amount: i128) -> String {
    i64::try_from(amount).map_or_else(
        |_| format!("{amount} nanocredits, which no amount can be,"),
        |amount| Nanocredits(amount).to_string(),
    )
}
