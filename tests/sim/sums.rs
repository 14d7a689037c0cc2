//! What must hold in a world: after each step, and when all has been said.

use std::collections::BTreeMap;

use jobmeter::domain::units::Nanocredits;
use jobmeter::ledger::Ledger;
use jobmeter::ledger::protocol::Reason;
use jobmeter::ledger::views::{Query, View};

use crate::backend::Chat;
use crate::sidecar::{Stage, last_word, price, usage};
use crate::world::World;

impl World {
    /// What was charged.
    pub(crate) fn charged(&mut self) -> Nanocredits {
        match self.ledger.read(&Query::Account { user: crate::world::user(0) }).expect("the account") {
            View::Account(account) => account.current,
            other => panic!("{other:?}"),
        }
    }

    /// After every call: the books replay, and nothing that was granted is more than could be spent.
    pub(crate) fn check(&mut self) {
        let each = if self.calm { 256 } else { 8 };
        if !self.calls.is_multiple_of(each) || self.is_ahead() {
            return;
        }
        match self.ledger.read(&Query::Verify).expect("the books") {
            View::Verified(found) => {
                assert!(found.problems.is_empty(), "seed {} at {} µs: {:?}", self.seed, self.now_us, found.problems);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everything that can still be said is said, and the sums are compared.
    pub(crate) fn end(&mut self) -> String {
        if self.is_ahead() {
            self.ahead_until_us = self.now_us;
            self.jump_ahead();
        }
        for at in 0..self.sidecars.len() {
            if let Stage::Running(_) = self.sidecars[at].stage {
                self.ended_by_operator(at);
            }
            if let Stage::Ended(finish) = &self.sidecars[at].stage {
                self.last_word(at, &finish.clone());
                self.sidecars[at].last_word = true;
            }
        }
        self.calls = 0;
        self.check();
        self.compare_tokens();
        self.compare_limits();
        for sidecar in &self.sidecars {
            let View::Job(Some(job)) =
                self.ledger.read(&Query::Job { job: sidecar.job_id().into() }).unwrap_or(View::Job(None))
            else {
                continue;
            };
            let Some(attempt) = job.attempts.iter().find(|attempt| attempt.identity.attempt == sidecar.id) else {
                continue;
            };
            let (charged, overshoot) = (attempt.charged.total, attempt.overshoot);
            let burned = price(sidecar.cpu_us);
            if self.restores == 0 && !sidecar.is_beyond {
                // What was burned was held before, so that it can be charged.
                assert_eq!(overshoot, Nanocredits::ZERO, "seed {}: {}", self.seed, sidecar.id);
            }
            if sidecar.last_word {
                assert_eq!(charged.saturating_add(overshoot), burned, "seed {}: {}", self.seed, sidecar.id);
            }
        }
        let stops = &self.stops;
        format!(
            "{} sidecars, {} replicas, {} crashes, limit {}, {} lost, {} repeated, {} restores, ends {stops:?}",
            self.sidecars.len(),
            self.replicas.len(),
            self.crashes,
            self.limit,
            self.network.lost,
            self.network.repeated,
            self.restores
        )
    }

    /// That somebody brought for this job.
    pub(crate) fn limit_of(&self, job: usize) -> Option<Nanocredits> {
        self.sidecars.iter().find(|sidecar| sidecar.job == job && sidecar.limit.is_some())?.limit
    }

    /// A job that had its limit from the beginning has not spent more.
    fn compare_limits(&mut self) {
        for job in self.sidecars.iter().map(|sidecar| sidecar.job).collect::<std::collections::BTreeSet<_>>() {
            let mut of_job = self.sidecars.iter().filter(|sidecar| sidecar.job == job);
            let always = of_job.all(|sidecar| sidecar.limit.is_some());
            if let Some(limit) = self.limit_of(job).filter(|_| always)
                && let Ok(View::Job(Some(found))) = self.ledger.read(&Query::Job { job: format!("job-{job}").into() })
            {
                assert!(found.charged.total <= limit, "seed {}: {:?} of {limit}", self.seed, found.charged);
            }
        }
    }

    /// What was settled was charged once, or given up as overshoot; a restore forgets tokens.
    pub(crate) fn compare_tokens(&mut self) {
        let mut settled: BTreeMap<String, u64> = BTreeMap::new();
        for (job, count) in self.chats.iter().map(Chat::settled) {
            *settled.entry(job).or_default() += count;
        }
        for (job, count) in settled {
            if let Ok(View::Job(Some(found))) = self.ledger.read(&Query::Job { job: job.as_str().into() })
                && self.restores == 0
            {
                // The answer to the last one may be on its way.
                let most = count + self.chats.iter().map(|chat| chat.unanswered(&job)).sum::<u64>();
                assert!((count..=most).contains(&found.tokens), "seed {}: {} of {count}", self.seed, found.tokens);
            }
        }
    }

    pub(crate) fn ended_by_operator(&mut self, at: usize) {
        let sidecar = &mut self.sidecars[at];
        if let Stage::Running(job) = &mut sidecar.stage {
            job.settle(&usage(sidecar.cpu_us));
            let finish = last_word(sidecar.id, job, sidecar.cpu_us, Reason::OperatorStop);
            sidecar.stage = Stage::Ended(finish);
        }
    }
}
