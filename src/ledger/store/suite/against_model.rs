//! The books beside a model of the one rule that knows nothing of them: whatever is done, both stand the same.

mod runs;
mod silence;
mod steps;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use self::runs::{Reserved, Run};
use self::steps::{Step, steps};
use super::balance_model::Model;
use super::*;
use crate::ledger::settings::LEASE_DEFAULT_MS;
use crate::ledger::views::LimitSince;

/// What two CPUs need to begin, in nanocredits, at the prices of a new ledger.
const MINIMUM: i128 = 256_000;

/// Of the many that are tried elsewhere, see the end of this file.
const SEQUENCES: u32 = 48;

type Checked = Result<(), TestCaseError>;

struct Play<'a> {
    world: &'a mut World,
    owner: String,
    model: Model,
    runs: Vec<Run>,
    reserved: Vec<Reserved>,
    count: usize,
    lease_us: i64,
}

fn same<T: PartialEq + std::fmt::Debug>(book: T, model: T, what: &str) -> Checked {
    if book == model {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!("{what}: the book says {book:?}, the model {model:?}")))
    }
}

impl Play<'_> {
    fn now_us(&self) -> i64 {
        self.world.clock.realtime_us()
    }

    fn number(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    fn change(&mut self, change: Change) -> Result<ChangeAnswer, LedgerError> {
        self.world.ledger.change(&change)
    }

    /// Ids are in the order in which they are made, whatever the clock says.
    fn id(&self, number: usize) -> Uuid {
        let owner: u128 = self.owner.trim_start_matches('u').parse().unwrap();
        Uuid::from_u128((owner << 64) | number as u128)
    }

    fn step(&mut self, step: &Step) -> Checked {
        let (by, why, user) = ("t".to_owned(), String::new(), self.owner.clone());
        match *step {
            Step::Pass(seconds) => self.pass(seconds),
            Step::Midnight(after_s) => {
                let now_s = self.now_us() / 1_000_000;
                self.pass(((now_s / DAY_S + 1) * DAY_S + after_s - now_s).max(2));
            }
            Step::Open => self.open()?,
            Step::Report(which, more, confirms, waits) => self.report(which, more, confirms, waits)?,
            Step::Finish(which, more) => self.finish(which, more)?,
            Step::Grant(amount, lasts_s) => {
                let expires_at = lasts_s.map(|lasts_s| self.now_us() / 1_000_000 + lasts_s);
                self.model.grant(amount.into(), expires_at);
                let key = format!("{user} {}", self.number());
                self.change(Change::Grant { user, amount: Nanocredits(amount), expires_at, by, why, key }).unwrap();
            }
            Step::Revoke(grant) => {
                let revoked = self.change(Change::RevokeGrant { user, grant: grant.into(), by, why });
                same(revoked.is_ok_and(|answer| !answer.again), self.model.revoke(grant), "revoked")?;
            }
            Step::Correct(amount, grant) => {
                let key = format!("{user} {}", self.number());
                let of_grant = grant.map(i64::from);
                let amount_of = Nanocredits(amount);
                let corrected = self.change(Change::Adjust {
                    user,
                    amount: amount_of,
                    grant: of_grant,
                    expires_at: None,
                    by,
                    why,
                    key,
                });
                same(corrected.is_ok(), self.model.correct(amount.into(), grant, None), "corrected")?;
            }
            Step::Limit(limit, now) => self.set_limit(user, limit, now),
            Step::Lease(lease_ms) => self.set_lease(lease_ms),
            Step::CarryOver(carries) => self.carry_over(carries),
            Step::Tokens(count) => self.tokens(count)?,
            Step::Reserve(count, lasts_s) => self.reserve(count, lasts_s)?,
            Step::Settle(which, count) => self.settle(which, count)?,
        }
        self.compare()
    }

    fn set_limit(&mut self, user: String, limit: Option<i64>, now: bool) {
        let since = Some(if now { LimitSince::Now } else { LimitSince::NextPeriod });
        let (period, carry_over, by, why) = (PeriodLength::Day, None, "t".to_owned(), String::new());
        let set = limit.map(Nanocredits);
        self.change(Change::SetLimit { user, limit: set, period, since, carry_over, by, why }).unwrap();
        self.model.set_limit(limit.map(i128::from), now);
        self.post_silent();
    }

    /// The limit stays, and so does what is pending.
    fn carry_over(&mut self, carries: bool) {
        let account = self.account();
        let pending = account.pending.map(|pending| pending.limit);
        let (limit, period) = (account.allowance, PeriodLength::Day);
        let set = |since, limit| Change::SetLimit {
            user: account.user.clone(),
            limit,
            period,
            since: Some(since),
            carry_over: Some(carries),
            by: "t".into(),
            why: String::new(),
        };
        self.change(set(LimitSince::Now, limit)).unwrap();
        self.model.set_limit(limit.map(|limit| limit.0.into()), true);
        if let Some(pending) = pending {
            self.change(set(LimitSince::NextPeriod, pending)).unwrap();
            self.model.set_limit(pending.map(|limit| limit.0.into()), false);
        }
        self.model.set_carries_over(carries);
        self.post_silent();
    }

    fn pass(&mut self, seconds: i64) {
        self.world.pass_s(seconds);
        let now_us = self.now_us();
        self.model.now(now_us / 1_000_000);
        self.reserved.retain(|reserved| {
            if reserved.until_us < now_us {
                self.model.release(reserved.number, reserved.period, reserved.held);
            }
            reserved.until_us >= now_us
        });
        self.post_silent();
    }

    fn account(&mut self) -> AccountView {
        match self.world.ledger.read(&Query::Account { user: self.owner.clone() }).unwrap() {
            View::Account(account) => *account,
            other => panic!("{other:?}"),
        }
    }

    fn compare(&mut self) -> Checked {
        let account = self.account();
        self.model.check();
        let model = self.model.snapshot();
        let or_none = |amount: Option<Nanocredits>| amount.map(|amount| i128::from(amount.0));
        let book = (
            (or_none(account.limit), i128::from(account.charged.0), i128::from(account.corrected.0)),
            (or_none(account.left), or_none(account.free), i128::from(account.held.0), i128::from(account.debt.0)),
        );
        let model = ((model.limit, model.charged, model.corrected), (model.left, model.free, model.held, model.debt));
        same(book, model, "limit, charged, corrected; left, free, held, debt")
    }

    fn open(&mut self) -> Checked {
        let number = self.number();
        let mut request = World::request(&format!("{} {number}", self.owner), None);
        (request.identity.attempt, request.identity.user) = (self.id(number), self.owner.clone());
        let free = self.model.snapshot().free;
        match self.world.ledger.open(&request).unwrap() {
            OpenAnswer::Opened { lease, .. } => {
                self.model.open(number);
                let attempt = request.identity.attempt;
                let ceilings = Vec::new();
                let (period, seq, burned, charged) = (lease.period, 0, 0, 0);
                let (opened_us, until_us, next, is_posted) = (self.now_us(), 0, None, false);
                let mut run = Run {
                    number,
                    attempt,
                    period,
                    lease,
                    ceilings,
                    seq,
                    burned,
                    charged,
                    opened_us,
                    until_us,
                    next,
                    is_posted,
                };
                self.leased(&mut run, lease)?;
                self.runs.push(run);
                Ok(())
            }
            OpenAnswer::Refused { .. } => {
                prop_assert!(free.is_some_and(|free| free < 2 * MINIMUM), "refused, and {free:?} are free");
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the book holds more must be free.
    fn leased(&mut self, run: &mut Run, lease: Lease) -> Checked {
        let before = run.ceiling();
        if run.ceilings.last().is_none_or(|(version, _)| *version < lease.version) {
            run.ceilings.push((lease.version, lease.ceiling.0.into()));
        }
        let more = run.ceiling() - before;
        let (number, period) = (run.number, run.period);
        self.model.hold(number, period, more).map_err(|why| TestCaseError::fail(format!("a lease: {why}")))?;
        let mut lasts_ms = lease.lasts_ms;
        if let Some(next) = lease.next {
            lasts_ms = next.starts_in_ms + next.lasts_ms;
            if run.next.is_none() {
                let held = self.model.hold(number, next.period, next.amount.0.into());
                held.map_err(|why| TestCaseError::fail(format!("a slice of the next period: {why}")))?;
                run.next = Some((next.period, next.amount.0.into()));
            }
        }
        // One that was given before leases became shorter lasts as it was given.
        run.until_us = run.until_us.max(self.now_us() + i64::try_from(lasts_ms).unwrap() * 1_000);
        run.lease = lease;
        Ok(())
    }

    /// Nothing is believed beyond what two CPUs can do in the time, and in ten seconds more.
    fn can_burn(&self, run: &Run) -> i64 {
        let passed_us = self.now_us() - run.opened_us;
        (2 * (passed_us + 10_000_000) / 4 - run.burned).max(0)
    }

    /// Charges what was burned so far, after the sidecar went over to the next period where it has a slice of it: what it says of the end
    /// of the earlier one.
    fn burn(&mut self, run: &mut Run, more: i64, confirms: bool) -> Option<ClosedPeriod> {
        let more = more.min(self.can_burn(run));
        let at_the_end = run.burned + more / 2;
        let mut held = run.held();
        run.burned += more;
        let mut closed = None;
        if confirms {
            run.ceilings.retain(|(version, _)| *version >= run.lease.version);
        }
        if let Some((next, amount)) = run.next.filter(|(next, _)| *next <= self.model.period()) {
            closed = Some(ClosedPeriod { period: run.period, usage: used(at_the_end) });
            run.charged += self.model.charge(run.number, i128::from(at_the_end) - run.charged, 0);
            self.model.enter(run.number, next);
            let version = run.ceilings.last().map_or(0, |(version, _)| *version);
            (run.period, run.next, run.ceilings) = (next, None, vec![(version, run.charged + amount)]);
            held = amount;
        }
        let wanted = i128::from(run.burned) - run.charged;
        run.charged += self.model.charge(run.number, wanted, 0);
        held = (held - wanted).max(0);
        if run.charged > run.ceiling() {
            run.ceilings.push((run.lease.version, run.charged));
        }
        self.model.release(run.number, run.period, held - run.held());
        closed
    }

    /// The run of this number, if any is left; it is put back where it goes on.
    fn take(&mut self, which: usize) -> Option<Run> {
        let count = self.runs.len();
        (count > 0).then(|| self.runs.remove(which % count))
    }

    fn report(&mut self, which: usize, more: i64, confirms: bool, waiting: bool) -> Checked {
        let Some(mut run) = self.take(which) else { return Ok(()) };
        if run.is_posted {
            self.runs.push(run);
            return Ok(());
        }
        let version = run.lease.version;
        let closed = self.burn(&mut run, more, confirms);
        run.seq += 1;
        let (attempt, usage, period) = (run.attempt, used(run.burned), run.period);
        let ceiling_version = if confirms { version } else { 0 };
        let (seq, ceiling, resources, secret) = (run.seq, Nanocredits::ZERO, RESOURCES, None);
        let report =
            Report { attempt, seq, usage, period, closed, ceiling_version, ceiling, resources, waiting, secret };
        match self.world.ledger.report(&report).unwrap().decision {
            Decision::Lease(lease) => self.leased(&mut run, lease)?,
            Decision::Wait { .. } => run.until_us = run.until_us.max(self.now_us() + self.lease_us),
            Decision::Stop(_) => {}
        }
        self.runs.push(run);
        Ok(())
    }

    fn finish(&mut self, which: usize, more: i64) -> Checked {
        let Some(mut run) = self.take(which) else { return Ok(()) };
        // All that it holds becomes free at once: what a newer ceiling alone would free is not paid to debt before the rest.
        let closed = if run.is_posted { self.correct(&mut run, more) } else { self.burn(&mut run, more, false) };
        self.model.enter(run.number, i64::MAX);
        let usage = used(run.burned);
        let answer = self.world.ledger.finish(&Finish { closed, ..finish(run.attempt, &usage, run.period) }).unwrap();
        let overshoot = i128::from(run.burned) - run.charged;
        let booked = (i128::from(answer.charged.total.0), i128::from(answer.overshoot.0));
        same(booked, (run.charged, overshoot), "charged, overshoot")
    }

    /// What was posted in full was less or more than that.
    fn correct(&mut self, run: &mut Run, more: i64) -> Option<ClosedPeriod> {
        run.burned += more.min(self.can_burn(run));
        let wanted = i128::from(run.burned) - run.charged;
        if wanted < 0 {
            self.model.pay_back(run.number, -wanted);
            run.charged += wanted;
        } else {
            run.charged += self.model.charge(run.number, wanted, 0);
        }
        None
    }

    fn job(&mut self) -> String {
        let job = format!("{} tokens", self.owner);
        if self.count == 0 {
            let mut request = World::request(&job, None);
            (request.identity.attempt, request.identity.user) = (self.id(0), self.owner.clone());
            // Refused or not, the job is there from now on.
            if let OpenAnswer::Opened { lease, .. } = self.world.ledger.open(&request).unwrap() {
                self.world.ledger.finish(&finish(self.id(0), &used(0), lease.period)).unwrap();
            }
            self.number();
        }
        job
    }

    fn tokens(&mut self, count: u64) -> Checked {
        let (job, number) = (format!("{} tokens", self.owner), self.number());
        let (by, key) = ("t".to_owned(), format!("{} {number}", self.owner));
        let answer = self.change(Change::ChargeTokens { job: job.into(), count, by, key }).unwrap();
        self.model.open(number);
        same(answer.charged.0.into(), self.model.charge(number, cost(count), 0), "tokens")
    }

    fn reserve(&mut self, count: u64, lasts_s: u64) -> Checked {
        let (job, number) = (format!("{} tokens", self.owner), self.number());
        let (by, key, new_id) = ("t".to_owned(), format!("{} {number}", self.owner), self.id(number));
        let lasts_ms = lasts_s * 1_000;
        let answer = self.change(Change::ReserveTokens { job: job.into(), count, lasts_ms, new_id, by, key }).unwrap();
        self.model.open(number);
        let (period, held) = (self.model.period(), cost(count));
        same(answer.reserved.is_some(), self.model.hold(number, period, held).is_ok(), "reserved")?;
        if answer.reserved.is_some() {
            let until_us = self.now_us() + i64::try_from(lasts_s).unwrap() * 1_000_000;
            self.reserved.push(Reserved { number, id: new_id, period, held, until_us });
        }
        Ok(())
    }

    /// What is used beyond what was set aside is paid by the present period.
    fn settle(&mut self, which: usize, count: u64) -> Checked {
        if self.reserved.is_empty() {
            return Ok(());
        }
        let Reserved { number, id, period, held, .. } = self.reserved.remove(which % self.reserved.len());
        let (job, by) = (format!("{} tokens", self.owner), "t".to_owned());
        let (rest, key) = (self.number(), format!("{} settle {number}", self.owner));
        let answer = self.change(Change::SettleTokens { job: job.into(), reservation: id, count, by, key }).unwrap();
        let of_held = cost(count).min(held);
        let mut charged = self.model.charge(number, of_held, 0);
        self.model.release(number, period, held);
        self.model.open(rest);
        charged += self.model.charge(rest, cost(count) - of_held, 0);
        same(answer.charged.0.into(), charged, "settled")
    }
}

/// CPU time that costs so much.
fn used(nanocredits: i64) -> Usage {
    Usage { cpu_used_seconds: cpu_at(Nanocredits(nanocredits)), ..Usage::default() }
}

fn cost(tokens: u64) -> i128 {
    i128::from(tokens) * 5_000
}

/// One account of its own for each sequence.
fn play(world: &mut World, number: u128, steps: &[Step]) -> Checked {
    let owner = format!("u{number}");
    world.clock.0.store(NOON_S * 1_000_000, Ordering::Relaxed);
    let limit = 2_000_000;
    world.change(Change::limit(&owner, Some(Nanocredits(limit)), PeriodLength::Day, "t")).unwrap();
    let model = Model::new(Some(limit.into()), NOON_S);
    let mut play = Play { world, owner, model, runs: Vec::new(), reserved: Vec::new(), count: 0, lease_us: 0 };
    play.set_lease(LEASE_DEFAULT_MS);
    play.job();
    play.compare()?;
    for step in steps {
        play.step(step)?;
    }
    Ok(())
}

fn sequences(cases: u32) {
    let config = crate::properties::config();
    let mut runner = TestRunner::new(proptest::test_runner::Config { cases, max_shrink_iters: 4_000, ..config });
    let world = std::cell::RefCell::new((World::new(), 0_u128));
    let result = runner.run(&steps(), |steps| {
        let (world, number) = &mut *world.borrow_mut();
        *number += 1;
        play(world, *number, &steps)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    world.borrow_mut().0.check();
}

/// `JOBMETER_SEQUENCES` says how many, for all cores together.
#[test]
fn whatever_is_done_the_books_stand_as_the_model_does() {
    let asked: Option<u32> = std::env::var("JOBMETER_SEQUENCES").ok().map(|count| count.parse().unwrap());
    let Some(asked) = asked else { return sequences(SEQUENCES) };
    let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    std::thread::scope(|scope| {
        (0..cores).for_each(|_| _ = scope.spawn(|| sequences(asked.div_ceil(cores))));
    });
}
