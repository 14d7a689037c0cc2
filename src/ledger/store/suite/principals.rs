//! Whose attempts and jobs are: what one principal has opened is not there to another, and ids meet nowhere.

use super::*;
use crate::ledger::asker::{Asker, DIRECT, Reach};
use crate::ledger::attempt_secret::AttemptSecret;
use crate::ledger::book::{Asked, Operation, Outcome};
use crate::ledger::job_name::JobName;

fn node(principal: &str) -> Asker {
    Asker { principal: principal.to_owned(), reach: Reach::Principal }
}

fn bound_to(user: &str) -> Asker {
    Asker { principal: "backend".to_owned(), reach: Reach::Owner(user.to_owned()) }
}

fn request(user: &str, job: &str) -> OpenRequest {
    let mut request = World::request(job, None);
    request.identity.user = user.to_owned();
    request
}

fn named(user: Option<&str>, principal: Option<&str>, id: &str) -> JobName {
    JobName { id: id.to_owned(), user: user.map(str::to_owned), principal: principal.map(str::to_owned) }
}

fn tokens(job: JobName, count: u64, key: &str) -> Change {
    Change::ChargeTokens { job, count, by: "t".into(), key: key.into() }
}

fn reserve(job: JobName) -> Change {
    let new_id = Uuid::now_v7();
    Change::ReserveTokens { job, count: 7, lasts_ms: 60_000, new_id, by: "t".into(), key: new_id.to_string() }
}

fn stop(job: JobName) -> Change {
    Change::StopJob { job, by: "t".into(), why: String::new() }
}

impl World {
    fn by(&mut self, asker: &Asker, operation: Operation<'_>) -> Result<Outcome, LedgerError> {
        self.ledger.post(&[Asked { operation, asker }]).unwrap().remove(0)
    }

    fn opened_by(&mut self, asker: &Asker, request: &OpenRequest) -> Lease {
        match self.by(asker, Operation::Open(request)) {
            Ok(Outcome::Opened(answer)) => match *answer {
                OpenAnswer::Opened { lease, .. } => lease,
                other => panic!("not opened: {other:?}"),
            },
            other => panic!("not opened: {other:?}"),
        }
    }

    fn changed_by(&mut self, asker: &Asker, change: &Change) -> Result<ChangeAnswer, LedgerError> {
        match self.by(asker, Operation::Change(change))? {
            Outcome::Changed(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    fn seen(&mut self, job: JobName) -> Result<JobView, LedgerError> {
        match self.ledger.read(&Query::Job { job })? {
            View::Job(Some(job)) => Ok(*job),
            other => panic!("{other:?}"),
        }
    }
}

/// What they are told is what they would be told of what there is not.
fn not_there<T: std::fmt::Debug>(answer: Result<T, LedgerError>, what: &str) {
    let is_so = match &answer {
        Err(LedgerError::Unknown(why)) => why.contains("was never opened here"),
        Err(LedgerError::Missing(why)) => why.contains("no job") || why.contains("has no reservation"),
        _ => false,
    };
    assert!(is_so, "{what}: {answer:?}");
}

#[test]
fn nobody_takes_the_id_of_anothers_job() {
    let mut world = World::new();
    let (one, two) = (node("node-1"), node("node-2"));
    for (asker, user, limit) in
        [(&one, "ann", "0.01"), (&two, "ann", "0.02"), (&one, "bob", "0.03"), (&DIRECT, "ann", "1")]
    {
        let request = OpenRequest { limit: Some(limit.parse().unwrap()), ..request(user, "train-1") };
        let lease = world.opened_by(asker, &request);
        let told = report(request.identity.attempt, 1, &seconds("1"), &lease, false);
        world.by(asker, Operation::Report(&told)).unwrap();
        world.check();
    }
    for (user, principal, limit) in
        [("ann", "node-1", 10_000_000), ("ann", "node-2", 20_000_000), ("bob", "node-1", 30_000_000)]
    {
        let job = world.seen(named(Some(user), Some(principal), "train-1")).unwrap();
        assert_eq!((job.limit, job.attempts.len()), (Some(Nanocredits(limit)), 1), "{user} {principal}");
        assert_eq!((job.user.as_str(), job.principal.as_str()), (user, principal));
    }
    // Each has its own tokens, its own stop, and its own sums.
    world.changed_by(&two, &tokens("train-1".into(), 100, "k")).unwrap();
    world.changed_by(&one, &stop(named(Some("bob"), None, "train-1"))).unwrap();
    let of = |user: &str, principal: &str| named(Some(user), Some(principal), "train-1");
    let stopped = |world: &mut World, job: JobName| world.ledger.read(&Query::Stopped { job, first: None }).unwrap();
    for (job, tokens, is_stopped) in [
        (of("ann", "node-1"), 0, false),
        (of("ann", "node-2"), 100, false),
        (of("bob", "node-1"), 0, true),
        (of("ann", ""), 0, false),
    ] {
        assert_eq!(world.seen(job.clone()).unwrap().tokens, tokens, "{job:?}");
        assert_eq!(stopped(&mut world, job.clone()), View::Stopped(is_stopped), "{job:?}");
    }
    let first = |principal: &str| Query::Stopped { job: "train-1".into(), first: Some(principal.to_owned()) };
    assert_eq!(world.ledger.read(&first("node-2")).unwrap(), View::Stopped(false));
    assert_eq!(world.ledger.read(&first("node-1")).unwrap(), View::Stopped(false), "not all of them are");
    world.check();
}

#[test]
fn a_name_that_means_several_jobs_says_whose_they_are() {
    let mut world = World::new();
    let (one, two) = (node("node-1"), node("node-2"));
    for (asker, user) in [(&one, "ann"), (&two, "ann"), (&two, "bob")] {
        world.opened_by(asker, &request(user, "train-1"));
    }
    world.opened_by(&two, &request("eve", "other-1"));
    let told = |answer: Result<ChangeAnswer, LedgerError>| match answer {
        Err(LedgerError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    for text in ["train-1", "trai"] {
        let Err(LedgerError::Refused(why)) = world.seen(text.into()) else { panic!("{text}") };
        for part in ["\"ann\" by \"node-1\"", "\"ann\" by \"node-2\"", "\"bob\" by \"node-2\"", "--principal"] {
            assert!(why.contains(part), "{why}");
        }
        let Err(LedgerError::Refused(why)) = world.seen(named(Some("ann"), None, text)) else { panic!("{text}") };
        assert!(!why.contains("bob"), "{why}");
    }
    assert_eq!(world.seen(named(Some("bob"), None, "trai")).unwrap().user, "bob");
    assert_eq!(world.seen(named(None, Some("node-1"), "trai")).unwrap().principal, "node-1");
    // Of those that they may not change they are told nothing.
    let why = told(world.changed_by(&two, &stop("train-1".into())));
    assert!(why.contains("ann") && why.contains("bob") && !why.contains("node-1"), "{why}");
    let why = told(world.changed_by(&bound_to("ann"), &tokens("train-1".into(), 1, "k")));
    assert!(why.contains("node-1") && why.contains("node-2") && !why.contains("bob"), "{why}");
    assert!(!world.changed_by(&one, &stop("train-1".into())).unwrap().again);
    world.changed_by(&bound_to("bob"), &stop("train-1".into())).unwrap();
    // The beginning of an id is for people who look.
    not_there(world.changed_by(&two, &stop("other".into())), "a beginning");
    world.check();
}

#[test]
fn what_one_principal_runs_is_not_there_to_another() {
    let mut world = World::new();
    let (one, two) = (node("node-1"), node("node-2"));
    let mine = request("ann", "train-1");
    let lease = world.opened_by(&one, &mine);
    let attempt = mine.identity.attempt;
    let job = || named(Some("ann"), Some("node-1"), "train-1");
    let reserved = world.changed_by(&one, &reserve(job())).unwrap().reserved.unwrap().reservation;
    let settle = |job: JobName| {
        let (by, key) = ("t".into(), Uuid::now_v7().to_string());
        Change::SettleTokens { job, reservation: reserved, count: 1, by, key }
    };
    world.opened_by(&two, &request("ann", "own"));
    let before = world.check();
    for other in [node("node-2"), node(""), bound_to("bob")] {
        let told = report(attempt, 9, &seconds("7"), &lease, false);
        not_there(world.by(&other, Operation::Report(&told)), "a report");
        not_there(world.by(&other, Operation::Finish(&finish(attempt, &seconds("0"), lease.period))), "a finish");
        for job in [job(), "train-1".into()] {
            not_there(world.changed_by(&other, &stop(job.clone())), "a stop");
            not_there(world.changed_by(&other, &tokens(job.clone(), 1, "k")), "tokens");
            not_there(world.changed_by(&other, &reserve(job.clone())), "a reservation");
            not_there(world.changed_by(&other, &settle(job)), "a settlement");
        }
        assert!(world.by(&other, Operation::Open(&mine)).is_err(), "opened again by {other:?}");
        let resume =
            Some(Resume { started_ms_ago: 0, rates_version: 1, period: 0, ceiling: lease.ceiling, ceiling_version: 1 });
        assert!(world.by(&other, Operation::Open(&OpenRequest { resume, ..mine.clone() })).is_err());
        let by_operator = Change::Settle { attempt, usage: None, by: "t".into(), why: "w".into() };
        assert!(matches!(world.changed_by(&other, &by_operator), Err(LedgerError::Missing(_))), "settled");
    }
    // Nor by a job of one's own.
    not_there(world.changed_by(&two, &settle("own".into())), "a settlement by another job");
    assert_eq!(world.check(), before);
    // Whose they are goes on as if nobody had asked.
    world.by(&one, Operation::Open(&mine)).unwrap();
    world.by(&one, Operation::Report(&report(attempt, 1, &seconds("0.1"), &lease, false))).unwrap();
    world.changed_by(&one, &settle("train-1".into())).unwrap();
    world.changed_by(&bound_to("ann"), &tokens(job(), 1, "k")).unwrap();
    world.by(&bound_to("ann"), Operation::Finish(&finish(attempt, &seconds("0.1"), lease.period))).unwrap();
    world.check();
}

/// Nobody changes accounts, keys and rates but operators, whatever way in they find.
#[test]
fn what_is_for_operators_is_for_nobody_else() {
    let mut world = World::new();
    let (by, why, user) = (|| "t".to_owned(), || "w".to_owned(), || "ann".to_owned());
    let (amount, key) = (Nanocredits(7), || "k".to_owned());
    let new_key = crate::ledger::views::NewKey::new("n", crate::ledger::keys::Scope::Admin, "t");
    let changes = [
        Change::limit("ann", None, PeriodLength::Day, "t"),
        Change::Suspend { user: user(), by: by(), why: why() },
        Change::Resume { user: user(), by: by(), why: why() },
        Change::RepairPeriod { user: user(), by: by(), why: why() },
        Change::RevokeGrant { user: user(), grant: 1, by: by(), why: why() },
        Change::Grant { user: user(), amount, expires_at: None, by: by(), why: why(), key: key() },
        Change::Adjust { user: user(), amount, grant: None, expires_at: None, by: by(), why: why(), key: key() },
        Change::SetRates { rates: RateCard { cpu_per_second: Nanocredits(1), ..RateCard::default() }, by: by() },
        Change::CreateKey { id: "i".into(), hash: "h".into(), key: new_key },
        Change::RevokeKey { id: "i".into(), by: by() },
    ];
    for change in &changes {
        for asker in [node("node-1"), bound_to("ann")] {
            let answer = world.changed_by(&asker, change);
            assert!(matches!(answer, Err(LedgerError::Missing(_))), "{asker:?} {change:?}: {answer:?}");
        }
    }
    assert_eq!(world.check().entries, 0);
}

/// What was opened before there were principals is gone on with by whoever shows its secret.
#[test]
fn an_attempt_of_before_goes_on_by_its_secret() {
    let mut world = World::new();
    let secret = |of: u8| Some(AttemptSecret::from([of; 32]));
    let old = OpenRequest { secret: secret(1), ..request("ann", "old") };
    let lease = world.opened_by(&DIRECT, &old);
    let attempt = old.identity.attempt;
    let one = node("node-1");
    for wrong in [None, secret(2)] {
        let told = Report { secret: wrong, ..report(attempt, 9, &seconds("7"), &lease, false) };
        assert!(matches!(world.by(&one, Operation::Report(&told)), Err(LedgerError::Foreign)));
    }
    let told = Report { secret: secret(1), ..report(attempt, 1, &seconds("0.1"), &lease, false) };
    world.by(&one, Operation::Report(&told)).unwrap();
    world.by(&one, Operation::Open(&old)).unwrap();
    // Its job has no secret.
    not_there(world.changed_by(&one, &tokens("old".into(), 1, "k")), "tokens");
    not_there(world.changed_by(&one, &stop("old".into())), "a stop");
    let last = Finish { secret: secret(1), ..finish(attempt, &seconds("0.2"), lease.period) };
    world.by(&one, Operation::Finish(&last)).unwrap();
    assert_eq!(world.seen("old".into()).unwrap().principal, "");
    world.check();
}

#[test]
fn a_refusal_keeps_no_job() {
    let mut world = World::with_limit("0");
    assert_eq!(world.refused("j"), StopReason::CreditsExhausted);
    assert!(matches!(world.seen("j".into()), Err(LedgerError::Missing(_))));
    not_there(world.change(tokens("j".into(), 1, "k")), "tokens");
    // Nor does it change one that is there.
    world.limit("1").unwrap();
    let (attempt, lease) = world.open("j", Some("0.5"));
    world.finish(attempt, &seconds("0.1"), lease.period);
    world.change(stop("j".into())).unwrap();
    let again = OpenRequest { limit: Some("0.9".parse().unwrap()), ..World::request("j", None) };
    let again = world.ledger.open(&again).unwrap();
    assert!(matches!(again, OpenAnswer::Refused { reason: StopReason::OperatorStop, .. }), "{again:?}");
    assert_eq!(world.job("j").limit, Some("0.5".parse().unwrap()));
    let View::Entries(entries) =
        world.ledger.read(&Query::Entries { user: "u".into(), count_max: 10, before: None }).unwrap()
    else {
        panic!()
    };
    assert_eq!(entries.iter().filter(|entry| entry.kind == "refuse").count(), 2, "they are entries all the same");
    world.check();
}

/// A key of a repeat is its job's, however its parts are put together.
#[test]
fn keys_of_repeats_meet_nowhere() {
    let mut world = World::new();
    let jobs = [("a", "p", "j"), ("a", "p", "j\",\"k"), ("a", "p\",\"j", "k"), ("a\",\"p", "j", "k"), ("b", "p", "j")];
    for (user, principal, job) in jobs {
        world.opened_by(&node(principal), &request(user, job));
    }
    let keys = ["k", "j\",\"k", "k\",\"k", "\"", "\\", "[\"a\",\"p\",\"j\",\"k\"]"];
    for (user, principal, job) in jobs {
        for key in keys {
            let change = tokens(named(Some(user), Some(principal), job), 5, key);
            assert!(!world.change(change.clone()).unwrap().again, "{change:?}");
            // However the job is named, and whoever asks.
            let bare = tokens(named(Some(user), None, job), 5, key);
            assert!(world.changed_by(&node(principal), &bare).unwrap().again, "{bare:?}");
            let other = tokens(named(Some(user), Some(principal), job), 6, key);
            assert!(matches!(world.change(other), Err(LedgerError::Refused(why)) if why.contains("was used before")));
        }
    }
    // Nor with what is kept of them, where keys of before are looked for as they are.
    world.opened_by(&DIRECT, &request("eve", "j"));
    for kept in [r#"["a","p","j","k"]"#, r#"["b","p","j","k"]"#] {
        let change = tokens(named(Some("eve"), Some(""), "j"), 5, kept);
        assert!(!world.change(change.clone()).unwrap().again && world.change(change).unwrap().again);
    }
    // Nor with those of accounts.
    for (user, key) in [("a", "p\",\"j\",\"k"), ("a", "k")] {
        let (amount, by, why) = (Nanocredits(7), "t".to_owned(), "w".to_owned());
        let grant = Change::Grant { user: user.into(), amount, expires_at: None, by, why, key: key.into() };
        assert!(!world.change(grant.clone()).unwrap().again && world.change(grant).unwrap().again);
    }
    world.check();
}

/// One transaction opens jobs of the same id and charges them.
#[test]
fn jobs_of_one_transaction_are_told_apart() {
    let mut world = World::new();
    let (one, two) = (node("node-1"), node("node-2"));
    let requests = [request("ann", "j"), request("bob", "j"), request("ann", "j")];
    let [first, second, third] = requests.each_ref().map(Operation::Open);
    let [of_two, of_bob] = [tokens("j".into(), 5, "k"), tokens(named(Some("bob"), None, "j"), 7, "k")];
    let several = tokens("j".into(), 1, "l");
    let asked = [
        Asked { operation: first, asker: &one },
        Asked { operation: second, asker: &one },
        Asked { operation: third, asker: &two },
        Asked { operation: Operation::Change(&of_two), asker: &two },
        Asked { operation: Operation::Change(&of_bob), asker: &one },
        Asked { operation: Operation::Change(&several), asker: &one },
    ];
    let done: Vec<bool> = world.ledger.post(&asked).unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(done, [true, true, true, true, true, false]);
    for (user, principal, tokens) in [("ann", "node-1", 0), ("bob", "node-1", 7), ("ann", "node-2", 5)] {
        assert_eq!(world.seen(named(Some(user), Some(principal), "j")).unwrap().tokens, tokens);
    }
    world.check();
}

/// A page ends with one of several jobs that have the same id, and the next begins behind it.
#[test]
fn pages_go_on_behind_jobs_of_the_same_id() {
    let mut world = World::new();
    let nodes: Vec<String> = (0..5).map(|at| format!("node-{at}")).collect();
    for principal in &nodes {
        for user in ["ann", "bob"] {
            world.opened_by(&node(principal), &request(user, "j"));
        }
        world.opened_by(&node(principal), &request("ann", &format!("job:{principal}")));
    }
    for (user, count) in [(None, 15), (Some("ann"), 10), (Some("bob"), 5)] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let query =
                Query::Jobs { user: user.map(str::to_owned), kind: None, running_only: false, count_max: 2, before };
            let View::Jobs { jobs, cursor } = world.ledger.read(&query).unwrap() else { panic!() };
            seen.extend(jobs.iter().map(JobView::key));
            let Some(cursor) = cursor else { break };
            before = Some(cursor);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "{user:?}");
    }
    // A cursor of another's page is none.
    let whole = |key: &str| format!("job:{}", key.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let cursor = whole(r#"["bob","node-1","j"]"#);
    for (user, cursor, is_one) in [
        (Some("bob"), cursor.as_str(), true),
        (Some("ann"), &cursor, false),
        (None, "job:zz", false),
        (None, "job:é", false),
        (None, "job:5b", false),
    ] {
        let (user, before) = (user.map(str::to_owned), Some(cursor.to_owned()));
        let page = world.ledger.read(&Query::Jobs { user, kind: None, running_only: false, count_max: 2, before });
        assert_eq!(page.is_ok(), is_one, "{cursor}");
    }
}
