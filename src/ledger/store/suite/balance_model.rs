//! The balance by the rule alone: written from the words, it knows nothing of the books that it is held against.
//! Amounts are nanocredits, times are seconds. One model is one account, and its periods are UTC days.

use std::collections::BTreeMap;
use std::ops::Range;

/// How long a period lasts, in seconds.
const DAY_S: i64 = 86_400;
/// What an allowance without a limit is given: more than anyone spends.
const ENDLESS: i128 = i128::MAX / 4;

/// What pays: a period's allowance, a grant (its end, its number), or debt. They compare in the order of spending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Allowance(i64),
    Grant(i64, u32),
    Debt,
}

/// For a period, of a source, an amount: held or paid.
type Part = (i64, Source, i128);

/// The sums of one source.
#[derive(Clone, Debug, Default)]
struct Fund {
    given: i128,
    charged: i128,
    taken: i128,
    held: i128,
    revoked: bool,
}

/// What the account shows. Without a limit three of these are `None`. `corrected` is never above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) limit: Option<i128>,
    pub(super) charged: i128,
    pub(super) corrected: i128,
    pub(super) left: Option<i128>,
    pub(super) free: Option<i128>,
    pub(super) held: i128,
    pub(super) debt: i128,
}

/// One account. `lowered` is the size of `corrected`. `charged` has the entries of each period, whatever paid them.
/// `asked` is all that corrections, late usage and carrying over ever asked for: what is taken, and debt.
/// Attempts have periods, what they hold, and what has paid for them, the latest payer last.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    next_limit: i128,
    carries: bool,
    now_s: i64,
    day: i64,
    funds: BTreeMap<Source, Fund>,
    grants: u32,
    carried: Option<Source>,
    debt: i128,
    lowered: i128,
    asked: i128,
    charged: BTreeMap<i64, i128>,
    periods: BTreeMap<usize, i64>,
    holds: BTreeMap<usize, Vec<Part>>,
    paid: BTreeMap<usize, Vec<Part>>,
}

impl Model {
    /// A new account, whose first period is the day of `now_s`.
    pub(super) fn new(limit: Option<i128>, now_s: i64) -> Self {
        let mut model = Self { now_s, day: now_s.div_euclid(DAY_S) * DAY_S, ..Self::default() };
        model.set_limit(limit, true);
        model
    }

    /// Time goes on, never back. Each day that passed begins on time here, seen or not.
    pub(super) fn now(&mut self, now_s: i64) {
        while self.day + DAY_S <= now_s {
            let ended = self.day;
            (self.now_s, self.day, self.lowered) = (ended + DAY_S, ended + DAY_S, self.debt);
            self.carry((ended, Source::Allowance(ended), ENDLESS));
            self.fund(Source::Allowance(self.day)).given = self.next_limit;
            self.pay_debt(None);
        }
        self.now_s = self.now_s.max(now_s);
    }

    /// The start of the current period, in seconds.
    pub(super) fn period(&self) -> i64 {
        self.day
    }

    /// Sets the limit, for this period or from the next one on. It replaces what was pending.
    pub(super) fn set_limit(&mut self, limit: Option<i128>, at_once: bool) {
        self.next_limit = limit.unwrap_or(ENDLESS);
        if at_once {
            self.fund(Source::Allowance(self.day)).given = self.next_limit;
            self.pay_debt(None);
        }
    }

    /// Whether what an allowance leaves becomes a grant at its end.
    pub(super) fn set_carries_over(&mut self, carries: bool) {
        self.carries = carries;
    }

    /// Makes a grant and says its number. Without an expiry it ends never.
    pub(super) fn grant(&mut self, amount: i128, expires_s: Option<i64>) -> u32 {
        self.make_grant(amount, expires_s.unwrap_or(i64::MAX));
        self.pay_debt(None);
        self.grants
    }

    /// Ends what is free of a grant. Its holds stay good. False where there is no such live grant.
    pub(super) fn revoke(&mut self, grant: u32) -> bool {
        let found = self.live_grant(grant);
        found.inspect(|source| self.fund(*source).revoked = true).is_some()
    }

    /// Corrects the balance. False: refused, and nothing has changed.
    pub(super) fn correct(&mut self, amount: i128, grant: Option<u32>, expires_s: Option<i64>) -> bool {
        let named = grant.map(|number| self.live_grant(number).filter(|source| self.free_of(*source) >= -amount));
        if amount == 0 || named.is_some_and(|found| found.is_none() || amount > 0) {
            return false;
        }
        if amount > 0 {
            self.make_grant(amount, expires_s.unwrap_or(self.day + DAY_S));
        } else {
            self.owe(-amount);
        }
        self.pay_debt(named.flatten());
        true
    }

    /// A new attempt, of the current period.
    pub(super) fn open(&mut self, attempt: usize) {
        assert!(self.periods.insert(attempt, self.day).is_none(), "attempt {attempt} is open already");
    }

    /// Holds `amount` for a period up to the next one: all of it, or an error and nothing.
    pub(super) fn hold(&mut self, attempt: usize, period: i64, amount: i128) -> Result<(), String> {
        let parts = self.free_parts(period, amount);
        if sum(&parts) < amount || period > self.day + DAY_S {
            return Err(format!("{amount} asked for {period}, free were {} at {}", sum(&parts), self.now_s));
        }
        for (_, source, amount) in &parts {
            self.fund(*source).held += amount;
        }
        self.holds.entry(attempt).or_default().extend(parts);
        Ok(())
    }

    /// Charges usage of the attempt's period: out of its holds, then of what is free, then, if late, as debt.
    /// Returns how much was charged. In the current period the rest is overshoot, which nobody pays.
    pub(super) fn charge(&mut self, attempt: usize, amount: i128, more: i128) -> i128 {
        let (usage, period) = (amount + more, self.periods[&attempt]);
        let held = self.unhold(attempt, period..period + 1, usage, false);
        let mut charged = self.pay(attempt, &held);
        charged += self.pay(attempt, &self.free_parts(period, usage - charged));
        if period < self.day && charged < usage {
            self.owe(usage - charged);
            charged += self.pay(attempt, &[(period, Source::Debt, usage - charged)]);
        }
        self.pay_debt(None);
        charged
    }

    /// Gives back what an attempt holds for a period, at most all of it, the last source first.
    pub(super) fn release(&mut self, attempt: usize, period: i64, amount: i128) {
        self.give_back(attempt, period..period + 1, amount);
    }

    /// The attempt goes over to a later period. What it held of earlier ones is released.
    pub(super) fn enter(&mut self, attempt: usize, period: i64) {
        self.periods.insert(attempt, period);
        self.give_back(attempt, i64::MIN..period, ENDLESS);
    }

    /// Pays back of all that an attempt was charged, at most all of it. What paid last is paid first.
    /// What was debt is owed no more. If it has been paid meanwhile, it becomes a grant that ends with the period.
    pub(super) fn pay_back(&mut self, attempt: usize, amount: i128) {
        let (mut wanted, mut paid) = (amount, self.paid.remove(&attempt).unwrap_or_default());
        for (period, source, left) in paid.iter_mut().rev() {
            let back = wanted.min(*left);
            (wanted, *left) = (wanted - back, *left - back);
            *self.charged.entry(*period).or_default() -= back;
            self.fund(*source).charged -= back;
            self.carry((*period, *source, back));
            if *source == Source::Debt {
                let lowers = back.min(self.debt);
                self.owe(-lowers);
                (back > lowers).then(|| self.make_grant(back - lowers, self.day + DAY_S));
            }
        }
        self.paid.insert(attempt, paid);
        self.pay_debt(None);
    }

    /// What the account shows now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let ended = |source: &Source| matches!(source, Source::Allowance(period) if *period != self.day);
        let held: i128 = self.funds.iter().filter(|(source, _)| !ended(source)).map(|(_, fund)| fund.held).sum();
        let limited = |amount| (self.funds[&Source::Allowance(self.day)].given < ENDLESS).then_some(amount);
        let charged = self.charged.get(&self.day).copied().unwrap_or(0);
        let free = sum(&self.free_parts(self.day, i128::MAX));
        let left = free + held - self.debt;
        let (limit, corrected) = (limited(left + charged + self.lowered), -self.lowered);
        Snapshot { limit, charged, corrected, left: limited(left), free: limited(free), held, debt: self.debt }
    }

    /// Panics where a source is below zero, where debt stands beside something free, or where sums disagree.
    pub(super) fn check(&self) {
        for (source, fund) in &self.funds {
            let over = fund.given < fund.charged + fund.taken + fund.held && matches!(source, Source::Grant(..));
            assert!(!over && fund.charged >= 0 && fund.taken >= 0 && fund.held >= 0, "below zero: {source:?} {fund:?}");
        }
        assert!(self.debt >= 0 && self.lowered >= self.debt, "debt {} of {}", self.debt, self.lowered);
        assert!(self.debt == 0 || sum(&self.free_parts(self.day, 1)) == 0, "free beside debt: {self:?}");
        let total = |amount: fn(&Fund) -> i128| self.funds.values().map(amount).sum::<i128>();
        assert_eq!(total(|fund| fund.held), self.holds.values().map(|held| sum(held)).sum(), "held, by attempts");
        assert_eq!(total(|fund| fund.charged), self.paid.values().map(|paid| sum(paid)).sum(), "charged, to attempts");
        assert_eq!(total(|fund| fund.charged), self.charged.values().sum(), "charged, in periods");
        assert_eq!(total(|fund| fund.taken), self.asked - self.debt, "taken, and what for");
    }

    fn fund(&mut self, source: Source) -> &mut Fund {
        self.funds.entry(source).or_default()
    }

    /// The grants that are live at a time, in the order of spending.
    fn live(&self, at_s: i64) -> impl Iterator<Item = Source> {
        let grants = self.funds.range(Source::Grant(at_s + 1, 0)..Source::Debt);
        grants.filter(|(_, grant)| !grant.revoked).map(|(source, _)| *source)
    }

    fn live_grant(&self, grant: u32) -> Option<Source> {
        self.live(self.now_s).find(|source| matches!(source, Source::Grant(_, number) if *number == grant))
    }

    /// What is free in a live source: of an allowance, nothing where its limit was lowered under what it spent.
    /// An allowance to come has the next limit, and will first pay the debt.
    fn free_of(&self, source: Source) -> i128 {
        let ahead = matches!(source, Source::Allowance(period) if period > self.day);
        let given = if ahead { self.next_limit - self.debt } else { 0 };
        let rest = |fund: &Fund| fund.given - fund.charged - fund.taken - fund.held;
        (given + self.funds.get(&source).map_or(0, rest)).max(0)
    }

    /// What of `want` is free for a period, in the order of spending.
    fn free_parts(&self, period: i64, want: i128) -> Vec<Part> {
        let mut parts = Vec::new();
        for source in [Source::Allowance(period)].into_iter().chain(self.live(self.now_s.max(period))) {
            parts.push((period, source, self.free_of(source).min(want - sum(&parts))));
        }
        parts
    }

    fn make_grant(&mut self, amount: i128, ends_s: i64) -> Source {
        self.grants += 1;
        let source = Source::Grant(ends_s, self.grants);
        self.fund(source).given = amount;
        source
    }

    /// Debt is made, and shows in this period as corrected.
    fn owe(&mut self, amount: i128) {
        self.debt += amount;
        self.lowered += amount;
        self.asked += amount;
    }

    /// Nothing is free while there is debt: what is free pays, one that is named first, then in the order of spending.
    fn pay_debt(&mut self, named: Option<Source>) {
        let sources = self.free_parts(self.day, self.debt).into_iter().map(|(_, source, _)| source);
        for source in named.into_iter().chain(sources) {
            let amount = self.free_of(source).min(self.debt);
            self.fund(source).taken += amount;
            self.debt -= amount;
        }
    }

    /// Takes of what an attempt holds for periods, in the order of spending or from its end.
    fn unhold(&mut self, attempt: usize, periods: Range<i64>, want: i128, last_first: bool) -> Vec<Part> {
        let mut holds = self.holds.remove(&attempt).unwrap_or_default();
        holds.sort_by(|a, b| if last_first { b.1.cmp(&a.1) } else { a.1.cmp(&b.1) });
        let mut parts = Vec::new();
        for (period, source, held) in holds.iter_mut().filter(|(period, ..)| periods.contains(period)) {
            let amount = (want - sum(&parts)).min(*held);
            *held -= amount;
            self.fund(*source).held -= amount;
            parts.push((*period, *source, amount));
        }
        self.holds.insert(attempt, holds);
        parts
    }

    /// Gives back what an attempt holds for periods, the last source first. One act is one moment for debt.
    fn give_back(&mut self, attempt: usize, periods: Range<i64>, amount: i128) {
        for part in self.unhold(attempt, periods, amount, true) {
            self.carry(part);
        }
        self.pay_debt(None);
    }

    /// Enters payments, and returns their sum. A source that pays again is the latest again.
    fn pay(&mut self, attempt: usize, parts: &[Part]) -> i128 {
        for &(period, source, amount) in parts.iter().filter(|(.., amount)| *amount > 0) {
            self.fund(source).charged += amount;
            *self.charged.entry(period).or_default() += amount;
            let paid = self.paid.entry(attempt).or_default();
            let before: Vec<Part> = paid.extract_if(.., |part| (part.0, part.1) == (period, source)).collect();
            paid.push((period, source, amount + sum(&before)));
        }
        sum(parts)
    }

    /// What an earlier period's allowance has left, at most the amount named, becomes a grant without an end.
    fn carry(&mut self, (period, source, most): Part) {
        let limited = self.fund(source).given < ENDLESS;
        let amount = self.free_of(source).min(most);
        if self.carries && limited && amount > 0 && source == Source::Allowance(period) && period < self.day {
            self.asked += amount;
            self.fund(source).taken += amount;
            match self.carried.filter(|grant| !self.funds[grant].revoked) {
                Some(grant) => self.fund(grant).given += amount,
                None => self.carried = Some(self.make_grant(amount, i64::MAX)),
            }
        }
    }
}

fn sum(parts: &[Part]) -> i128 {
    parts.iter().map(|(.., amount)| amount).sum()
}

#[cfg(test)]
mod tests {
    use super::Model;

    /// Plays "act = what it returns, or else what the account shows then; …", in tenths of a credit and in hours.
    /// What stands before a colon is a name. The allowance is 5, and there are two attempts.
    fn play(acts: &str) {
        let mut model = Model::new(Some(50), 0);
        for act in ["open 1", "open 2"].into_iter().chain(acts.split(": ").last().unwrap().split("; ")) {
            let (said, wanted) = act.split_once(" = ").unwrap_or((act, ""));
            let numbers = |text: &str| text.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<i128>>();
            let n = numbers(said);
            let at_s = |at: usize| n.get(at).map(|hours| i64::try_from(hours * 3_600).unwrap());
            let number = |at: usize| n.get(at).and_then(|number| u32::try_from(*number).ok()).filter(|n| *n > 0);
            let (who, of_s) = (number(0).unwrap_or(0) as usize, at_s(1).unwrap_or(0));
            let mut got = None;
            match said.split(' ').next().unwrap() {
                "at" => model.now(at_s(0).unwrap()),
                "limit" => model.set_limit(n.first().copied().filter(|limit| *limit >= 0), n.len() < 2),
                "carries" => model.set_carries_over(n[0] == 1),
                "grant" => got = Some(model.grant(n[0], at_s(1)).into()),
                "revoke" => got = Some(model.revoke(number(0).unwrap_or(0)).into()),
                "correct" => got = Some(model.correct(n[0], number(1), at_s(2)).into()),
                "open" => model.open(who),
                "hold" => got = Some(model.hold(who, of_s, n[2]).is_ok().into()),
                "use" => got = Some(model.charge(who, n[1], n[2])),
                "release" => model.release(who, of_s, n[2]),
                "enter" => model.enter(who, of_s),
                "back" => model.pay_back(who, n[1]),
                other => assert_eq!(other, "shows"),
            }
            model.check();
            let s = model.snapshot();
            let shown = [s.limit, Some(s.charged), Some(s.corrected), s.left, s.free, Some(s.held), Some(s.debt)];
            let got = got.map_or(shown.map(|amount| amount.unwrap_or(-1)).to_vec(), |got| vec![got]);
            assert!(got.starts_with(&numbers(wanted)), "{act}: {got:?} in {acts}");
        }
    }

    #[test]
    fn the_table_holds() {
        play("grant 1000; use 1 0 600; shows = 1050 600 0 450 450");
        play("grant 1000; use 1 0 450; at 24; enter 1 24; use 1 0 100; shows = 650 100 0 550 550");
        play("grant 100 10; use 1 0 80; hold 1 0 10; at 10 = 90 80 0 10 0");
        play("use 1 0 20; correct -120; shows = 50 20 -120 -90 0; at 24 = 50 0 -90 -40 0; at 48 = 50 0 -40 10 10");
        play("use 1 0 40; hold 1 0 5; grant 100; limit 20 = 145 40 0 105 100; release 1 0 5 = 140 40 0 100 100");
        play("carries 1; use 1 0 20; hold 1 0 3; at 24 = 77 0 0 77 77; release 1 0 3 = 80 0 0 80 80");
    }

    #[test]
    fn the_refinements_hold() {
        for acts in [
            "order of spending, and back: grant 10; grant 20 10; grant 30 20; grant 40 10; use 1 0 60; \
             correct -11 2 = 0; correct -10 2 = 1; correct -41 4 = 0; correct -40 4 = 1; hold 1 0 40; use 1 5 0; \
             release 1 0 10; correct 5 1 = 0; correct -10 1 = 1; at 10; release 1 0 25; correct -26 3 = 0; \
             correct -25 3 = 1; shows = 150 65 -85 0 0",
            "corrections, and live till then: correct 0 = 0; correct -5 9 = 0; revoke 9 = 0; correct 10; \
             correct 20 0 30; shows = 80 0 0 80; correct -5 2; at 24 = 65; at 29 = 65; at 30 = 50",
            "what pays debt: use 1 0 20; hold 1 0 20; correct -50; grant 15; shows = 65 20 -50 -5 0 20 25; \
             release 1 0 10 = 65 20 -50 -5 0 10 15; back 1 5 = 65 15 -50 0 0 10 10; limit 55 = 70 15 -50 5 0 10 5; \
             grant 6; shows = 76 15 -50 11 1 10 0",
            "days unseen: correct -120; carries 1; limit 40 1; at 48 = 40 0 -30 10 10; at 96 = 90 0 0 90 90",
            "days unseen at once: correct -120; carries 1; limit 40 1; at 96 = 90 0 0 90 90",
            "one carried grant: carries 1; hold 1 0 1; release 1 0 1; grant 1 = 1; at 24; grant 5 = 3; at 48 = 156; \
             revoke 2 = 1; revoke 2 = 0; shows = 56; at 72 = 106; grant 1 = 5",
            "pending limits: limit 20 1; limit 30 = 30; at 24 = 30; limit 20 1; shows = 30; limit 40 1; at 72 = 40",
            "no limit: limit -1; use 1 0 900 = 900; correct -5; carries 1; shows = -1 900 -5 -1 -1 0 0; at 24; \
             grant 1 = 1; limit 7 = 8 0 0 8 8",
            "the next day: limit 40 1; correct -60; hold 1 24 31 = 0; hold 1 24 30 = 1; hold 1 48 0 = 0; \
             at 24 = 40 0 -10 30 0 30 0; enter 1 24; use 1 30 0 = 30",
            "and its grants: grant 5 24; hold 1 24 51 = 0; grant 5 25; hold 1 24 55 = 1; shows = 60 0 0 60 55 5",
            "entering: hold 1 0 20; hold 1 24 10; at 24 = 50 0 0 50 40 10 0; enter 1 24; hold 2 0 51 = 0; \
             hold 2 0 50 = 1; shows = 50 0 0 50 40 10; release 2 0 10; carries 1; release 2 0 5 = 55",
            "overshoot: use 1 0 70 = 50; shows = 50 50 0 0 0 0 0",
            "late: use 1 0 10; grant 20; at 24; use 1 0 100 = 100; shows = 50 0 -40 10 10; \
             back 1 40 = 90 0 -40 50 50; back 1 60 = 110 0 -40 70 70; at 48 = 70",
            "late beside debt: use 1 0 10; at 24; correct -60; use 1 0 45 = 45; shows = 50 0 -65 -15 0 0 15; \
             back 1 7 = 50 0 -60 -10 0 0 10; use 1 0 2; shows = 50 0 -60",
            "debt paid back: use 1 0 50; at 24; use 1 0 80; at 48 = 50 0 -30 20 20; use 1 0 60 = 60; \
             shows = 50 0 -90 -40 0; back 1 60 = 70 0 -50 20 20; at 72 = 50",
            "the latest payer: grant 100; use 2 0 20; use 1 0 40; back 2 20; use 1 0 5; back 1 35; correct -91 1 = 0; \
             correct -90 1 = 1",
            "carried later: carries 1; use 1 0 40; hold 1 0 5; limit 42; at 24 = 42; release 1 0 5 = 44 0 0 44 44; \
             back 1 30 = 74",
            "revoked: grant 10; use 1 0 50; hold 1 0 6; revoke 1 = 1; shows = 56 50 0 6 0; use 1 4 0 = 4; \
             release 1 0 2 = 54 54 0 0 0",
        ] {
            play(acts);
        }
    }

    #[test]
    fn a_random_walk_keeps_the_rule() {
        let verbs = "limit A|limit A 1|limit -1|carries B|grant A T|grant A|revoke N|correct -A|correct A 0 T|\
                     correct -A N|hold N P A|hold N D A|use N A B|use N 0 A|release N P A|enter N D|back N A";
        let mut seed = 88_172_645_463_325_252_usize;
        for _ in 0..1_000 {
            let (mut hour, mut acts) = (0, String::from("open 3"));
            for _ in 0..60 {
                let mut dice = |sides: usize| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed % sides
                };
                hour += dice(4) * dice(12);
                let (day, verb) = (hour / 24 * 24, verbs.split('|').nth(dice(17)).unwrap());
                let times = [("H", hour), ("D", day), ("T", hour + dice(60)), ("P", (day + dice(3) * 24).max(24) - 24)];
                let marks = times.into_iter().chain([("A", dice(60)), ("N", 1 + dice(3)), ("B", dice(2))]);
                let act = format!("; at H; {verb}");
                acts += &marks.fold(act, |act, (mark, number)| act.replace(mark, &number.to_string()));
            }
            play(&acts);
        }
    }
}
