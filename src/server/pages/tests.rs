//! What the pages say, word for word, on books whose clock stands still.

use askama::Template;
use serde_json::json;

use super::usage::Asked;
use super::{Page, credits, jobs, usage};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::views::{AccountView, JobView, PeriodLength, UsageRow};

fn page(here: &'static str, is_admin: bool) -> Page {
    let bar = credits::of(&account(1_200_000_000), Some(&day("2026-11-26", 3_800_000_000))).render().unwrap();
    Page {
        here,
        bar,
        bar_url: "/widget/credits?user=ann".to_owned(),
        watch: "ann".to_owned(),
        live: true,
        everybody: is_admin,
        administers: is_admin,
    }
}

fn account(left: i64) -> AccountView {
    AccountView {
        user: "ann".to_owned(),
        current: Nanocredits(5_000_000_000 - left),
        limit: Some(Nanocredits(5_000_000_000)),
        charged: Nanocredits(5_000_000_000 - left),
        corrected: Nanocredits::ZERO,
        left: Some(Nanocredits(left)),
        free: Some(Nanocredits(left)),
        available: Some(Nanocredits(left)),
        debt: Nanocredits::ZERO,
        suspended: false,
        allowance: Some(Nanocredits(5_000_000_000)),
        carries_over: false,
        pending: None,
        held: Nanocredits(10_000_000),
        provisional: Nanocredits::ZERO,
        grants: Vec::new(),
        period: PeriodLength::Day,
        period_start: "2026-11-26T00:00:00Z".to_owned(),
        period_end: "2026-11-27T00:00:00Z".to_owned(),
        resets_in_ms: 1,
        burn_per_second: Nanocredits(500_000),
        exhausted_at: Some("2026-11-26T18:00:00Z".to_owned()),
        running: 1,
        standing: crate::ledger::views::Standing::Known,
    }
}

fn day(day: &str, credits: i64) -> UsageRow {
    UsageRow {
        period_start: format!("{day}T00:00:00Z"),
        period_end: String::new(),
        total_credits: Nanocredits(credits),
        total_virtual_cpu_time: Microseconds(2_000_000_000),
        total_virtual_gpu_time: Microseconds(1_300_000_000),
        total_tokens_consumed: 10_000,
        cpu_credits: Nanocredits(500_000_000),
        gpu_credits: Nanocredits(credits - 550_000_000),
        token_credits: Nanocredits(50_000_000),
        ..UsageRow::default()
    }
}

/// A training on a GPU that was stopped at zero.
fn job() -> JobView {
    let rates = json!({"cpu_basis": "used", "cpu_per_second": 0.00025, "cpu_weight_ppm": 1_000_000, "gpu_basis": "busy",
        "gpu_per_second": 0.0025, "gpu_weight_ppm": 1_000_000, "per_million_tokens": 5, "version": 1});
    let charged = json!({"cpu": 0.03, "gpu": 0.15, "tokens": 0, "total": 0.18});
    let receipt = json!({
        "outcome": {"reason": "credits_exhausted", "exit_code": null, "signal": 9, "tamper": "none", "degraded": ["no memory controller"]},
        "time": {"wall_seconds": 61.5, "held_seconds": 0.25},
        "cpu": {"source": "cgroup2", "error_bound_seconds": 0.000_001, "total_seconds": 120, "user_seconds": 110,
            "system_seconds": 10, "teardown_seconds": 0.125, "throttled_seconds": null,
            "busiest": [{"pid": 41, "command": "python3 <train>", "cpu_seconds": 119.5}]},
        "gpu": {"notes": ["MPS is on"], "devices": [{"uuid": "GPU-1", "name": "H200", "mode": "exclusive", "weight": 1,
            "busy_seconds": 60, "allocated_seconds": 61.5, "utilization": {"percent": [0, 50, 100]}}]},
    });
    let attempt = json!({
        "identity": {"attempt": "01a218cd-161b-73a0-9e7d-80d31dee2fae", "job": "j-1", "task": "0", "user": "ann",
            "kind": "training", "command": ["python3"], "host": "node-7"},
        "state": "ended", "startedAt": "2026-11-26T17:00:00Z", "endedAt": "2026-11-26T17:01:01Z",
        "reason": "credits_exhausted", "charged": charged, "overshoot": 0, "held": 0, "rates": rates,
        "usage": {"cpu_used_seconds": 120, "cpu_allocated_seconds": 123, "tokens": 0,
            "gpus": {"GPU-1": {"busy_seconds": 60, "allocated_seconds": 61.5}}},
        "receipt": receipt, "burn": [{"afterMs": 30_000, "charged": 0.09}, {"afterMs": 60_000, "charged": 0.18}],
    });
    let job = json!({
        "job": "j-1", "user": "ann", "kind": "training", "name": "a <b>model</b>", "state": "ended",
        "startedAt": "2026-11-26T17:00:00Z", "endedAt": "2026-11-26T17:01:01Z", "charged": charged, "overshoot": 0,
        "virtual": {"cpu_seconds": 120, "gpu_seconds": 60, "total_seconds": 180}, "tokens": 0, "limit": null,
        "attempts": [attempt],
    });
    serde_json::from_str(&job.to_string()).unwrap()
}

#[test]
fn the_status_bar() {
    for (state, left) in [("ok", 4_000_000_001), ("amber", 1_000_000_000), ("red", 250_000_000), ("zero", 0)] {
        let bar = credits::of(&account(left), Some(&day("2026-11-26", 5_000_000_000 - left)));
        insta::assert_snapshot!(format!("bar_{state}"), bar.render().unwrap());
    }
}

#[test]
fn the_page_of_a_job() {
    insta::assert_snapshot!("job", jobs::page_of(page("jobs", false), &job()).render().unwrap());
    let mut running = job();
    running.state = "running".to_owned();
    running.attempts[0] = crate::ledger::views::AttemptView {
        state: "running".to_owned(),
        reason: None,
        receipt: None,
        ..running.attempts[0].clone()
    };
    let text = jobs::page_of(page("jobs", true), &running).render().unwrap();
    insta::assert_snapshot!("job_running_for_an_administrator", text);
}

#[test]
fn the_report() {
    let asked = |user: Option<&str>| Asked {
        user: user.map(str::to_owned),
        month: "2026-11".to_owned(),
        from_s: 1_793_491_200,
    };
    let days = [day("2026-11-02", 1_000_000_000), day("2026-11-26", 3_800_000_000)];
    let text =
        usage::page_of(page("usage", false), asked(Some("ann")), (&days, &UsageRow::sum(&days).unwrap()), Vec::new())
            .render()
            .unwrap();
    insta::assert_snapshot!("report", text);
    let each = ["bob", "ann"].map(|user| UsageRow { user: Some(user.to_owned()), ..day("2026-11-01", 2_400_000_000) });
    let text = usage::page_of(page("usage", true), asked(None), (&days, &UsageRow::sum(&days).unwrap()), each.into())
        .render()
        .unwrap();
    insta::assert_snapshot!("report_of_all", text);
}
