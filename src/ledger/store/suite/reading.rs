//! What is read over many accounts: usage, jobs, figures.

use super::*;
use crate::ledger::store::Concerned;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{Figures, UsageRow, Whose};

impl World {
    /// Opens a job of another kind, or of somebody else.
    fn open_as(&mut self, user: &str, job: &str, kind: JobKind) -> (Uuid, Lease) {
        let mut request = Self::request(job, None);
        (request.identity.user, request.identity.kind) = (user.to_owned(), kind);
        match self.ledger.open(&request).unwrap() {
            OpenAnswer::Opened { lease, .. } => (request.identity.attempt, lease),
            other => panic!("not opened: {other:?}"),
        }
    }

    fn usage(&mut self, whose: Whose, by: PeriodLength) -> Vec<UsageRow> {
        let range = UsageRange::new(None, Some("2026-11-01"), Some("2026-12-31"), Some(by)).unwrap();
        match self.ledger.read(&Query::Usage { whose, range }).unwrap() {
            View::Usage(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    /// By pages of so many rows, or days.
    fn usage_of_each(&mut self, by: PeriodLength, count_max: u32) -> Vec<UsageRow> {
        let range = UsageRange::new(None, Some("2026-11-01"), Some("2027-12-31"), Some(by)).unwrap();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            match self.ledger.read(&Query::UsageOfEach { range, after, count_max }).unwrap() {
                View::UsagePage { rows, next } => {
                    assert!(rows.len() <= count_max.max(62) as usize && (next.is_none() || !rows.is_empty()));
                    all.extend(rows);
                    after = next;
                }
                other => panic!("{other:?}"),
            }
            if after.is_none() {
                return all;
            }
        }
    }

    fn figures(&mut self) -> Figures {
        match self.ledger.read(&Query::Figures).unwrap() {
            View::Figures(figures) => *figures,
            other => panic!("{other:?}"),
        }
    }

    fn jobs(&mut self, user: Option<&str>, kind: Option<JobKind>, running_only: bool) -> Vec<String> {
        let query = Query::Jobs { user: user.map(str::to_owned), kind, running_only, count_max: 10, before: None };
        match self.ledger.read(&query).unwrap() {
            View::Jobs { jobs, .. } => jobs.into_iter().map(|job| job.job).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn usage_of_all_accounts_is_the_sum_of_each() {
    let mut world = World::new();
    for (user, job, burned) in [("ann", "a", "1"), ("bob", "b", "2"), ("ann", "c", "0.5")] {
        let (attempt, lease) = world.open_as(user, job, JobKind::Training);
        world.finish(attempt, &seconds(burned), lease.period);
        world.pass_s(DAY_S);
    }
    world.change(Change::ChargeTokens { job: "a".into(), count: 10, by: "t".into(), key: "k".into() }).unwrap();
    let of = |rows: &[UsageRow]| -> Vec<(String, String, i64, u64)> {
        let day = |row: &UsageRow| row.period_start.get(..10).unwrap().to_owned();
        let row = |row: &UsageRow| {
            let user = row.user.clone().unwrap_or_default();
            (user, day(row), row.total_credits.0, row.total_virtual_cpu_time.0)
        };
        rows.iter().map(row).collect()
    };
    let row = |user: &str, day: &str, credits, us| (user.to_owned(), day.to_owned(), credits, us);
    let all = world.usage(Whose::All, PeriodLength::Day);
    assert_eq!(
        of(&all),
        [
            row("", "2026-11-24", 250_000, 1_000_000),
            row("", "2026-11-25", 500_000, 2_000_000),
            row("", "2026-11-26", 125_000, 500_000),
            row("", "2026-11-27", 50_000, 0),
        ]
    );
    let each = world.usage_of_each(PeriodLength::Month, 1);
    assert_eq!(of(&each), [row("ann", "2026-11-01", 425_000, 1_500_000), row("bob", "2026-11-01", 500_000, 2_000_000)]);
    let ann = world.usage(Whose::User("ann".into()), PeriodLength::Month).pop().unwrap();
    assert_eq!((ann.cpu_credits.0, ann.token_credits.0, ann.total_tokens_consumed), (375_000, 50_000, 10));
    world.check();
}

#[test]
fn pages_of_what_each_account_used_have_each_day_once() {
    let mut world = World::new();
    for day in 0..40 {
        for user in ["ann", "bob", "o'brien.1"] {
            let (attempt, lease) = world.open_as(user, &format!("{user}-{day}"), JobKind::Training);
            world.finish(attempt, &seconds("1"), lease.period);
        }
        world.pass_s(DAY_S);
    }
    let days = world.usage_of_each(PeriodLength::Day, 1_000);
    assert_eq!(days.len(), 120);
    for count_max in [1, 7, 40, 119, 120] {
        assert_eq!(world.usage_of_each(PeriodLength::Day, count_max), days, "{count_max}");
    }
    let months = world.usage_of_each(PeriodLength::Month, 1);
    assert_eq!(months, world.usage_of_each(PeriodLength::Month, 1_000));
    let us: Vec<_> =
        months.iter().map(|row| (row.user.as_deref().unwrap(), row.total_virtual_cpu_time.0 / 1_000_000)).collect();
    assert_eq!(
        us,
        [
            ("ann", 7),
            ("ann", 31),
            ("ann", 2),
            ("bob", 7),
            ("bob", 31),
            ("bob", 2),
            ("o'brien.1", 7),
            ("o'brien.1", 31),
            ("o'brien.1", 2)
        ]
    );
    let wrong = Query::UsageOfEach {
        range: UsageRange::new(None, None, None, None).unwrap(),
        after: Some("x".into()),
        count_max: 1,
    };
    assert!(matches!(world.ledger.read(&wrong), Err(LedgerError::Missing(_))));
}

#[test]
fn figures_are_of_what_burns_now() {
    let mut world = World::new();
    assert_eq!(world.figures(), Figures::default());
    let (attempt, lease) = world.open_as("ann", "a", JobKind::Generation);
    let (idle, _) = world.open_as("bob", "b", JobKind::Training);
    world.pass_s(1);
    world.report(attempt, 1, &seconds("0.5"), &lease, false);
    let figures = world.figures();
    assert_eq!((figures.running, figures.provisional, figures.overspent), (2, 0, 0));
    let ann = figures.accounts.iter().find(|account| account.user == "ann").unwrap();
    assert_eq!((ann.running, ann.charged.0, ann.provisional.0), (1, 125_000, 0));
    assert!(ann.held.0 > 0 && ann.burn_per_second.0 > 0 && ann.left == Some(Nanocredits(5_000_000_000 - 125_000)));
    assert_eq!(world.jobs(None, Some(JobKind::Generation), false), ["a"]);
    assert_eq!(world.jobs(Some("bob"), Some(JobKind::Generation), true), Vec::<String>::new());
    world.finish(attempt, &seconds("0.5"), lease.period);
    assert_eq!((world.jobs(None, None, true), world.jobs(Some("ann"), None, true)), (vec!["b".to_owned()], vec![]));
    // Bob's falls silent.
    world.pass_s(600);
    let figures = world.figures();
    assert_eq!((figures.running, figures.provisional), (0, 1));
    assert!((500_000_000..600_000_000).contains(&figures.provisional_oldest_us), "{figures:?}");
    world.change(Change::Settle { attempt: idle, usage: None, by: "t".into(), why: "w".into() }).unwrap();
    assert_eq!(world.figures(), Figures::default());
    world.check();
}

/// Whoever looks at an account in which nothing has to be marked waits for no writer.
#[test]
fn an_account_is_read_beside_a_writer() {
    let mut world = World::with_limit("5");
    world.open("j", None);
    world.account();
    let mut writer = another_store(&world.place, Box::new(world.clock.clone()));
    writer.begin().unwrap();
    writer.lock(&Concerned { owners: vec!["u"], ..Concerned::default() }).unwrap();
    assert_eq!(world.account().left, Some(Nanocredits(5_000_000_000)));
    writer.rollback();
    // A lease that is over is marked by whoever looks.
    world.pass_s(3_600);
    assert!(world.account().provisional > Nanocredits::ZERO);
}
