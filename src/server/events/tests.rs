//! The looks and the streams, on books that the test writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;

use super::seen::{Changed, RunningJob, Seen};
use super::watched::look_each;
use super::*;
use crate::domain::units::Nanocredits;
use crate::ledger::LedgerError;
use crate::ledger::views::{AccountView, PeriodLength};
use crate::sys::clock::{Clock, SystemClock};

const MOMENT: Duration = Duration::from_millis(1);

fn seen(charged: i64, jobs: &[(&str, i64)]) -> Seen {
    let account = AccountView {
        user: "ann".to_owned(),
        current: Nanocredits(charged),
        limit: None,
        charged: Nanocredits(charged),
        corrected: Nanocredits::ZERO,
        left: None,
        free: None,
        available: None,
        held: Nanocredits::ZERO,
        provisional: Nanocredits::ZERO,
        debt: Nanocredits::ZERO,
        suspended: false,
        allowance: None,
        carries_over: false,
        pending: None,
        grants: Vec::new(),
        period: PeriodLength::Day,
        period_start: "2026-11-26T00:00:00Z".to_owned(),
        period_end: "2026-11-27T00:00:00Z".to_owned(),
        resets_in_ms: 1_000,
        burn_per_second: Nanocredits(1),
        exhausted_at: Some("2026-11-26T18:00:00Z".to_owned()),
        running: 1,
        standing: crate::ledger::views::Standing::Known,
    };
    let running = jobs.iter().map(|(job, charged)| RunningJob {
        principal: String::new(),
        job: (*job).to_owned(),
        name: None,
        state: "running".to_owned(),
        charged: Nanocredits(*charged),
    });
    Seen { account, running: running.collect() }
}

fn changed(account: bool, jobs: &[&str]) -> Changed {
    Changed { account, jobs: jobs.iter().map(|job| (*job).to_owned()).collect() }
}

#[test]
fn what_passes_with_the_time_is_no_change() {
    let before = seen(1, &[("a", 1), ("b", 2)]);
    let mut later = before.clone();
    later.account.resets_in_ms = 0;
    later.account.exhausted_at = Some("2026-11-26T18:00:01Z".to_owned());
    assert!(Changed::since(Some(&before), &later).is_nothing());
    later.account.burn_per_second = Nanocredits(2);
    assert_eq!(Changed::since(Some(&before), &later), changed(true, &[]));
}

#[test]
fn it_tells_which_jobs_have_changed() {
    let before = seen(1, &[("still", 1), ("burns", 2), ("ended", 3)]);
    let now = seen(1, &[("new", 0), ("still", 1), ("burns", 4)]);
    assert_eq!(Changed::since(Some(&before), &now), changed(false, &["new", "burns", "ended"]));
    assert_eq!(Changed::since(None, &now), changed(true, &["new", "still", "burns"]));
}

/// Books that are another at each look, as often as there are `steps`; then they stay. One look in three fails.
struct Books {
    steps: Mutex<Vec<Seen>>,
    looks: AtomicUsize,
}

impl Books {
    fn new(mut steps: Vec<Seen>) -> Arc<Self> {
        steps.reverse();
        Arc::new(Self { steps: Mutex::new(steps), looks: AtomicUsize::new(0) })
    }

    fn look(&self) -> Result<Seen, LedgerError> {
        if self.looks.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
            return Err(LedgerError::Unavailable("busy".to_owned()));
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(if steps.len() > 1 { steps.pop().unwrap() } else { steps[0].clone() })
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// The looks go on meanwhile.
async fn changed_of(latest: &mut watch::Receiver<Latest>) -> Arc<Frame> {
    latest.changed().await.unwrap();
    latest.borrow_and_update().clone().unwrap()
}

#[test]
fn only_what_has_changed_becomes_a_frame_and_a_slow_reader_has_the_last() {
    let steps = [1, 1, 1, 2, 2, 3].map(|charged| seen(charged, &[("a", charged)]));
    let books = Books::new(steps.to_vec());
    run(async {
        let (sender, mut eager) = watch::channel(None);
        let mut slow = eager.clone();
        let looking = look_each(MOMENT, &sender, || std::future::ready(books.look()));
        let reading = async {
            let mut last: Option<Arc<Frame>> = None;
            for charged in [1, 2, 3] {
                let frame = changed_of(&mut eager).await;
                let event: serde_json::Value =
                    serde_json::from_str(&frame.event_after(last.as_deref()).unwrap()).unwrap();
                assert_eq!(event["running"][0]["charged"].to_string(), format!("0.00000000{charged}"));
                last = Some(frame);
            }
            let first = None;
            let of_slow = changed_of(&mut slow).await;
            assert_eq!(of_slow.event_after(first).unwrap(), last.unwrap().event_after(first).unwrap());
            // Nothing changes any more.
            while books.looks.load(Ordering::Relaxed) < 20 {
                tokio::task::yield_now().await;
            }
            assert!(eager.changed().now_or_never().is_none());
            drop((eager, slow));
        };
        // It ends once nobody watches.
        tokio::join!(looking, reading);
    });
}

#[test]
fn who_has_missed_frames_is_told_of_all_that_changed_in_them() {
    let steps = [seen(1, &[("a", 1), ("b", 1)]), seen(2, &[("a", 2), ("b", 1)]), seen(3, &[("a", 2), ("b", 2)])];
    let books = Books::new(steps.to_vec());
    run(async {
        let (sender, mut latest) = watch::channel(None);
        let looking = look_each(MOMENT, &sender, || std::future::ready(books.look()));
        let reading = async {
            let first = changed_of(&mut latest).await;
            let second = changed_of(&mut latest).await;
            let third = changed_of(&mut latest).await;
            let jobs = |frame: &Frame, last: Option<&Frame>| {
                let event: serde_json::Value = serde_json::from_str(&frame.event_after(last).unwrap()).unwrap();
                event["changed"]["jobs"].to_string()
            };
            assert_eq!(jobs(&third, Some(&second)), r#"["b"]"#);
            assert_eq!(jobs(&third, Some(&first)), r#"["a","b"]"#);
            drop(latest);
        };
        tokio::join!(looking, reading);
    });
}

#[test]
fn all_who_watch_an_account_share_its_looks() {
    let watched = Arc::new(Watched::default());
    let books = Books::new(vec![seen(1, &[])]);
    run(async {
        let (stop, stopping) = watch::channel(false);
        let join = |user: &str| {
            let books = Arc::clone(&books);
            watched.join(user, stopping.clone(), move || std::future::ready(books.look()))
        };
        let mut all: Vec<_> = (0..100).map(|_| join("ann")).collect();
        for latest in &mut all {
            latest.changed().await.unwrap();
        }
        assert_eq!(books.looks.load(Ordering::Relaxed), 1);
        // Whose account is watched reports soon, and nobody else's.
        assert_eq!((watched.report_in_ms("ann", 0, 10_000), watched.report_in_ms("bob", 0, 10_000)), (1_000, 10_000));
        drop(all);
        while watched.report_in_ms("ann", 0, 10_000) < 10_000 {
            tokio::task::yield_now().await;
        }
        // It begins anew, and ends with the service.
        let mut latest = join("ann");
        stop.send_replace(true);
        while latest.changed().await.is_ok() {}
        assert_eq!(watched.report_in_ms("ann", 0, 10_000), 10_000);
    });
}

/// However often is looked: a stream tells something, and the next thing a second later, which is the latest.
#[test]
fn a_stream_tells_the_latest_once_a_second() {
    run(async {
        let (sender, latest) = watch::channel(None);
        let books = Books::new((1..=6).map(|charged| seen(charged, &[])).collect());
        let looking = look_each(MOMENT, &sender, || std::future::ready(books.look()));
        let reading = async {
            let seat = Arc::new(super::seats::Seats::default()).take(None, "", None).unwrap();
            let (_stop, stopping) = watch::channel(false);
            let mut told = Told::new(latest, stopping, seat);
            let begun_us = SystemClock.boottime_us();
            assert!(told.next().await.is_some());
            assert!(told.next().await.is_some());
            let took_us = SystemClock.boottime_us() - begun_us;
            assert!(took_us >= 1_000_000, "{took_us}");
            // Five frames lay between the two.
            assert_eq!(told.last.as_ref().unwrap().number, 5);
            drop(told);
        };
        tokio::join!(looking, reading);
    });
}
