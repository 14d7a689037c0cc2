//! The termination message of a container, where the kubelet finds why it ended. The workload may have written there too:
//! what counts is what is written last, once everything of it is dead.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::receipt::Receipt;
use crate::domain::printable::printable_json;

/// What a receipt says, in less than the 4096 bytes that the kubelet reads.
pub(super) fn of_receipt(path: Option<&Path>, receipt: &Receipt) {
    let credits = receipt.credits.as_ref().map(|credits| credits.total);
    let told = json!({
        "reason": receipt.outcome.reason,
        "exit_code": receipt.outcome.exit_code,
        "signal": receipt.outcome.signal,
        "job": receipt.job.id,
        "attempt": receipt.job.attempt,
        "cpu_seconds": receipt.cpu.total_seconds,
        "gpu_seconds": receipt.gpu.busy_seconds,
        "tokens": receipt.tokens,
        "credits": credits,
    });
    write(path, &told.to_string());
}

/// That something went wrong, and what.
pub(super) fn of_failure(path: Option<&Path>, reason: &str, why: &str) {
    write(path, &json!({ "reason": reason, "why": why.chars().take(1_000).collect::<String>() }).to_string());
}

fn write(path: Option<&Path>, text: &str) {
    let Some(path) = path else { return };
    // The runtime has made the file; nothing is created, and nothing that stands in its place is followed elsewhere.
    let options = std::fs::OpenOptions::new().write(true).truncate(true).open(path);
    options.and_then(|mut file| file.write_all(printable_json(text).as_bytes())).ok();
}
