//! What goes wrong in a world: silence, clocks that step, crashes of sidecars, machines and replicas, cut lines, restores.

use std::sync::atomic::Ordering;

use jobmeter::ledger::attempt_secret::AttemptSecret;
use jobmeter::ledger::protocol::{Finish, Reason};
use jobmeter::ledger::store::sqlite::{Restoring, backup, restore};
use jobmeter::ledger::views::Query;
use jobmeter::ledger::{Ledger, LedgerError};

use crate::sidecar::{Stage, last_word, usage};
use crate::world::{HOSTS, World};

impl World {
    pub(crate) fn disturb(&mut self) {
        if self.chance.below(2_000) == 0 {
            self.silent_until_us = self.now_us + self.chance.below(40_000_000);
        }
        if self.chance.below(3_000) == 0 {
            let step_s = self.chance.below(172_800) as i64 - 86_400;
            self.wall.0.fetch_add(step_s * 1_000_000, Ordering::Relaxed);
            // Several steps together may be more than is believed.
            if !self.is_ahead() && self.ledger.read(&Query::Rates).is_err() {
                self.ledger.trust_clock("sim", "it was set").expect("the clock is believed");
            }
        }
        self.jump_ahead();
        self.disturb_replicas();
        // Nobody asks the ledger at such a moment: it would say why it does not answer.
        if !self.is_ahead() {
            self.copy_or_restore();
            self.operate();
        }
        let at = self.chance.below(self.sidecars.len() as u64) as usize;
        if self.chance.below(4_000) == 0 {
            self.crash(at);
        }
        if self.chance.below(200) == 0 && !self.is_ahead() {
            self.intrude(at);
        }
        if self.chance.percent(1) {
            self.sidecars[at].load_percent = self.chance.below(101);
        }
    }

    /// Somebody with a key, who knows an attempt by its id, says that it has ended and burned nothing.
    fn intrude(&mut self, at: usize) {
        let attempt = self.sidecars[at].id;
        let secret = self.chance.percent(50).then(AttemptSecret::new);
        let (closed, reason, receipt) = (None, Reason::Completed, serde_json::Value::Null);
        let finish = Finish { attempt, usage: usage(0), period: 0, closed, reason, receipt, secret };
        match self.ledger.finish(&finish) {
            // It is not open yet, or a restore has made the ledger forget it.
            Err(LedgerError::Foreign | LedgerError::Unknown(_)) => {}
            other => panic!("seed {}: an intruder is answered by {other:?}", self.seed),
        }
    }

    /// One of them will die soon, within a transaction or after it; or a host cannot reach it for a while.
    pub(crate) fn disturb_replicas(&mut self) {
        let at = self.chance.below(self.replicas.len() as u64) as usize;
        if self.chance.below(120) == 0 {
            self.replicas[at].doom(self.chance.below(60));
        }
        if self.chance.below(1_000) == 0 {
            let host = self.chance.below(HOSTS as u64) as usize;
            self.cuts.insert((host, at), self.now_us + self.chance.below(60_000_000));
        }
    }

    /// A copy of the ledger is made now and then, and takes its place later. Spools say again what they had said.
    pub(crate) fn copy_or_restore(&mut self) {
        let (path, copy) = (self.directory.path().join("l.db"), self.directory.path().join("copy.db"));
        if self.chance.below(3_000) == 0 && !copy.exists() {
            backup(&path, &copy).expect("a copy");
        } else if self.chance.below(2_000) == 0 && copy.exists() {
            restore(&path, &copy, Restoring::default(), ("sim", ""), Box::new(self.wall.clone())).expect("a restore");
            std::fs::remove_file(&copy).expect("the copy goes");
            self.restores += 1;
            self.restored_at_us = self.now_us;
            for sidecar in &mut self.sidecars {
                if let (Stage::Gone, Some(said)) = (&sidecar.stage, sidecar.said.take()) {
                    sidecar.stage = Stage::Ended(said);
                    sidecar.next_us = self.now_us + 1;
                }
            }
        }
    }

    pub(crate) fn last_word(&mut self, at: usize, finish: &Finish) {
        let origin = self.sidecars[at].origin();
        origin.finish(&mut self.ledger, finish, &self.wall).expect("a last word is taken");
        self.sidecars[at].said = Some(finish.clone());
    }

    /// The sidecar dies, and its job with it; what it has burned stands in its spool, unless the machine is lost too.
    pub(crate) fn crash(&mut self, at: usize) {
        let machine_lost = self.chance.percent(30);
        let sidecar = &mut self.sidecars[at];
        if let Stage::Running(job) = &sidecar.stage {
            let finish = last_word(sidecar.id, job, sidecar.cpu_us, Reason::MeterLost);
            sidecar.stage = if machine_lost { Stage::Gone } else { Stage::Ended(finish) };
            sidecar.next_us = self.now_us + 1_000_000 + self.chance.below(20_000_000);
        }
    }
}
