//! `ledger verify`: replays all entries and compares every balance that is kept beside them.

use super::Books;
use super::row::Attempt;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::Verification;

impl Books<'_> {
    /// Compares.
    pub(super) fn verify(&self) -> Result<Verification, LedgerError> {
        let mut found = Verification::default();
        self.verify_file(&mut found)?;
        self.verify_numbers(&mut found)?;
        self.verify_periods(&mut found)?;
        self.verify_grants(&mut found)?;
        for attempt in self.attempts("?1 = ''", "")? {
            found.attempts = found.attempts.saturating_add(1);
            self.verify_attempt(&attempt, &mut found.problems)?;
        }
        Ok(found)
    }

    fn verify_file(&self, found: &mut Verification) -> Result<(), LedgerError> {
        let mut statement = self.tx.prepare("PRAGMA integrity_check(10)")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        found.problems.extend(lines.into_iter().filter(|line| line != "ok").map(|line| format!("SQLite says: {line}")));
        Ok(())
    }

    fn verify_numbers(&self, found: &mut Verification) -> Result<(), LedgerError> {
        let (count, last): (i64, i64) =
            self.tx.query_row("SELECT count(*), coalesce(max(id), 0) FROM entry", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        found.entries = super::entries::unsigned(count);
        if count != last {
            found.problems.push(format!("{} of {last} entries are missing", last.saturating_sub(count)));
        }
        let sums: i64 = self.tx.query_row(
            "SELECT count(*) FROM entry WHERE kind IN ('charge', 'correct', 'tokens') AND cpu + gpu + token <> amount",
            [],
            |row| row.get(0),
        )?;
        if sums > 0 {
            found.problems.push(format!("in {sums} charges cpu + gpu + tokens is not the amount"));
        }
        Ok(())
    }

    fn verify_periods(&self, found: &mut Verification) -> Result<(), LedgerError> {
        let mut statement = self.tx.prepare(
            "SELECT p.user, p.start, p.credit_limit, p.adjusted, p.charged, \
             (SELECT coalesce(sum(amount), 0) FROM entry e WHERE e.user = p.user AND e.period = p.start AND e.source = 0 \
             AND e.kind IN ('charge', 'correct', 'tokens')), \
             (SELECT coalesce(sum(amount), 0) FROM entry e WHERE e.user = p.user AND e.period = p.start AND e.kind = 'adjust'), \
             (SELECT coalesce(sum(amount), 0) FROM hold h WHERE h.user = p.user AND h.period = p.start AND h.source = 0), \
             (SELECT max(start) FROM period q WHERE q.user = p.user AND q.start < p.start), \
             (SELECT max(ends) FROM period q WHERE q.user = p.user AND q.start < p.start), \
             (SELECT max(amount) FROM entry e WHERE e.user = p.user AND e.period = p.start AND e.kind = 'limit') \
             FROM period p ORDER BY p.user, p.start",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (user, start): (String, i64) = (row.get(0)?, row.get(1)?);
            let number = |at: usize| row.get::<_, i64>(at).map(Nanocredits);
            let (adjusted, charged, replayed, adjustments, held) =
                (number(3)?, number(4)?, number(5)?, number(6)?, number(7)?);
            found.accounts = found.accounts.saturating_add(1);
            let mut wrong = |what: String| found.problems.push(format!("{user}, period {start}: {what}"));
            if charged != replayed {
                wrong(format!("{charged} credits are booked as charged, the entries say {replayed}"));
            }
            if adjusted != adjustments {
                wrong(format!("{adjusted} credits are booked as adjusted, the entries say {adjustments}"));
            }
            let limits: Option<i64> = row.get(2)?;
            let highest = limits.map(|limit| limit.max(row.get::<_, Option<i64>>(10).ok().flatten().unwrap_or(limit)));
            if let Some(limit) = highest {
                let spendable = Nanocredits(limit).saturating_add(adjusted.at_least_zero());
                if charged.saturating_add(held) > spendable {
                    wrong(format!(
                        "{charged} charged and {held} held are more than the {spendable} that could be spent"
                    ));
                }
            }
            if row.get::<_, Option<i64>>(9)?.is_some_and(|ends| ends > start) {
                wrong("it overlaps the period before it".to_owned());
            }
        }
        Ok(())
    }

    fn verify_grants(&self, found: &mut Verification) -> Result<(), LedgerError> {
        let mut statement = self.tx.prepare(
            "SELECT g.id, g.user, g.amount, g.charged, \
             (SELECT coalesce(sum(amount), 0) FROM entry e WHERE e.source = g.id AND e.kind IN ('charge', 'correct', 'tokens')), \
             (SELECT coalesce(sum(amount), 0) FROM entry e WHERE e.source = g.id AND e.kind = 'grant'), \
             (SELECT coalesce(sum(amount), 0) FROM hold h WHERE h.source = g.id) FROM credit_grant g",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, user): (i64, String) = (row.get(0)?, row.get(1)?);
            let number = |at: usize| row.get::<_, i64>(at).map(Nanocredits);
            let (amount, charged, replayed, granted, held) =
                (number(2)?, number(3)?, number(4)?, number(5)?, number(6)?);
            if charged != replayed || amount != granted {
                found.problems.push(format!(
                    "grant {id} of {user}: {charged} of {amount} credits are booked, the entries say {replayed} of {granted}"
                ));
            }
            if charged.saturating_add(held) > amount {
                found.problems.push(format!("grant {id} of {user}: {charged} charged and {held} held exceed {amount}"));
            }
        }
        Ok(())
    }

    fn verify_attempt(&self, attempt: &Attempt, problems: &mut Vec<String>) -> Result<(), LedgerError> {
        let entries: i64 = self
            .tx
            .prepare_cached(
                "SELECT coalesce(sum(amount), 0) FROM entry WHERE job = ?1 AND attempt = ?2 AND kind IN ('charge', 'correct')",
            )?
            .query_row((&attempt.job, attempt.id.to_string()), |row| row.get(0))?;
        let (replayed, charged) = (Nanocredits(entries), attempt.state.charged.total);
        let mut wrong = |what: String| problems.push(format!("attempt {}: {what}", attempt.id));
        if replayed != charged {
            wrong(format!("{charged} credits are booked as charged, the entries say {replayed}"));
        }
        let parts = attempt.state.charged;
        if parts.cpu.saturating_add(parts.gpu).saturating_add(parts.tokens) != parts.total {
            wrong("cpu + gpu + tokens is not the total".to_owned());
        }
        let accounted = attempt.state.accounted.total;
        if charged.saturating_add(attempt.state.overshoot) != accounted {
            wrong(format!(
                "charged {charged} and overshoot {} are not the {accounted} accounted for",
                attempt.state.overshoot
            ));
        }
        let held = self.held(attempt, attempt.period)?;
        let unburned = if attempt.ended_us.is_some() {
            Nanocredits::ZERO
        } else {
            attempt.ceiling().saturating_sub(accounted).at_least_zero()
        };
        if held != unburned {
            wrong(format!("{held} credits are held, its ceiling leaves {unburned}"));
        }
        Ok(())
    }
}
