//! Sidecars that measure nothing: they tell a ledger what a test makes up.

use serde_json::{Value, json};

use crate::placeholders::OWN_IDS;
use crate::service::Service;

/// The id of an attempt of a test's own.
pub(crate) fn id(number: u32) -> String {
    format!("{OWN_IDS}{number:012}")
}

/// A number with exactly these digits.
fn decimal(text: &str) -> Value {
    Value::Number(text.parse().expect("a number"))
}

/// A machine of 64 CPUs and 8 GPUs: half a second of it is lent at once, more than the attempts here burn.
fn resources() -> Value {
    json!({ "cpus_ppm": 64_000_000, "gpus": 8, "stop_us": 6_000 })
}

/// What opens an attempt; `more` goes into its identity.
pub(crate) fn attempt(number: u32, job: &str, user: &str, more: Value) -> Value {
    let mut identity = json!({
        "attempt": id(number), "job": job, "task": "0", "user": user, "kind": "training",
        "command": ["python3", "train.py"], "host": "node-7",
    });
    let more = more.as_object().expect("an object").clone();
    identity.as_object_mut().expect("an object").extend(more);
    json!({ "identity": identity, "resources": resources() })
}

fn path(number: u32, rest: &str) -> String {
    format!("/api/v1/attempts/{}{rest}", id(number))
}

pub(crate) fn opening(service: &Service, number: u32, job: &str, user: &str, more: Value) -> Value {
    service.does("node", &format!("PUT {}", path(number, "")), &attempt(number, job, user, more))
}

fn usage(cpu_seconds: &str, gpus: Value) -> Value {
    json!({ "cpu_used_seconds": decimal(cpu_seconds), "cpu_allocated_seconds": decimal(cpu_seconds), "gpus": gpus })
}

/// The period that pays now: that of the newest lease, which opening again tells.
fn period(service: &Service, number: u32) -> Value {
    let job = service.does("operator", "GET /api/v1/jobs?count=1000", &Value::Null);
    let of = |attempt: &&Value| attempt["identity"]["attempt"] == id(number);
    let jobs = job["jobs"].as_array().expect("jobs").clone();
    let attempts: Vec<Value> =
        jobs.iter().flat_map(|job| job["attempts"].as_array().expect("attempts").clone()).collect();
    let identity = attempts.iter().find(of).expect("the attempt")["identity"].clone();
    let body = json!({ "identity": identity, "resources": resources() });
    service.does("node", &format!("PUT {}", path(number, "")), &body)["opened"]["lease"]["period"].clone()
}

pub(crate) fn report(service: &Service, number: u32, cpu_seconds: &str, gpus: Value) -> Value {
    let body = json!({
        "attempt": id(number), "seq": 1, "usage": usage(cpu_seconds, gpus), "period": period(service, number),
        "ceiling_version": 1, "resources": resources(),
    });
    service.does("node", &format!("PUT {}", path(number, "/usage")), &body)
}

/// The last word, but for its period.
pub(crate) fn last_word(number: u32, cpu_seconds: &str, gpus: Value, reason: &str, receipt: &Value) -> Value {
    json!({ "attempt": id(number), "usage": usage(cpu_seconds, gpus), "reason": reason, "receipt": receipt })
}

pub(crate) fn finished(service: &Service, number: u32, word: &Value) -> Value {
    let mut word = word.clone();
    word["period"] = period(service, number);
    service.does("node", &format!("POST {}", path(number, "/finish")), &word)
}

/// A receipt with everything in it that one may have.
pub(crate) fn receipt(number: u32) -> Value {
    json!({
        "schema": "jobmeter.receipt/1",
        "job": { "id": "train-1", "task": "0", "attempt": id(number), "name": "iris", "kind": "training", "user": "ann",
            "command": ["python3", "train.py"], "host": "node-7", "labels": { "team": "a" } },
        "outcome": { "reason": "completed", "exit_code": 0, "signal": null, "tamper": "none",
            "degraded": ["perf: the job cannot be frozen at its ceiling, it is killed there"] },
        "time": { "started_at": "2001-02-03T04:05:06Z", "ended_at": "2001-02-03T04:05:16Z", "wall_seconds": 10,
            "held_seconds": 0.25, "frozen_seconds": 0.125, "notice_sent_at": null },
        "cpu": { "source": "cgroup2", "error_bound_seconds": decimal("0.000001"), "total_seconds": 12.5,
            "user_seconds": 11, "system_seconds": 1.5, "allocated_seconds": 20, "throttled_seconds": 0.5,
            "pressure_seconds": 0.75, "steal_seconds": 0.01, "teardown_seconds": 0.02,
            "busiest": [{ "pid": 41, "command": "python3", "cpu_seconds": 11.5 }] },
        "memory": { "peak_bytes": 268_435_456, "oom_kills": 0 },
        "io": { "read_bytes": 1_048_576, "written_bytes": 2_048 },
        "gpu": { "source": "nvml", "driver": "570.124.06", "declared_by": "--gpus", "busy_seconds": 1.2,
            "allocated_seconds": 2, "unattributed_seconds": 0.1, "error_bound_seconds": 0.8,
            "devices": [device()], "notes": ["MPS is on"], "readings": 10 },
        "tokens": 0,
        "virtual": { "cpu_seconds": 12.5, "gpu_seconds": 2.4, "total_seconds": 14.9 },
        "credits": null,
        "meter": { "cpu_seconds": 0.01, "readings": 10, "reports": 2,
            "ledger_answers": { "max_seconds": 0.004, "below_ms": { "5": 2 } }, "wake_lateness_max_seconds": 0.001 },
    })
}

fn device() -> Value {
    json!({ "uuid": "GPU-1", "name": "NVIDIA H200", "mode": "exclusive", "weight": 2, "declared": false,
        "busy_seconds": 1.2, "allocated_seconds": 2, "unattributed_seconds": 0.1, "estimated_seconds": 0.2,
        "error_bound_seconds": 0.8, "memory_peak_bytes": 3_221_225_472_u64, "energy_millijoules": 90_000,
        "utilization": { "column_seconds": 0.5, "percent": [0, 25, 50, 100] }, "notes": ["it fell off the bus"] })
}
