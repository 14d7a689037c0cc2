//! A receipt on its way to the books and in them: text, which nobody reads but who shows it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// No receipt in the books is longer.
pub const RECEIPT_MAX_BYTES: usize = 16 * 1024;

/// A receipt as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReceiptText(Box<RawValue>);

impl PartialEq for ReceiptText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Default for ReceiptText {
    /// One that says nothing.
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

/// Its name, and what leaves it out.
type Detail = (&'static str, fn(&mut Value));

/// What is left out of a receipt that is too long, in this order, until it is not.
const DETAILS: [Detail; 6] = [
    ("the columns of GPU use", |receipt| empty_each(receipt, &["utilization", "percent"])),
    ("the processes of GPUs", |receipt| empty_each(receipt, &["processes"])),
    ("the busiest processes", |receipt| empty(receipt, &["cpu", "busiest"])),
    ("the command line", |receipt| empty(receipt, &["job", "command"])),
    ("the labels", |receipt| empty(receipt, &["job", "labels"])),
    ("the single GPUs", |receipt| {
        for list in ["devices", "notes", "refused"] {
            empty(receipt, &["gpu", list]);
        }
    }),
];

/// Empties a list or a table, where there is one.
fn empty(within: &mut Value, path: &[&str]) {
    let found = path.iter().try_fold(within, |value, name| value.get_mut(name));
    match found {
        Some(Value::Array(list)) => list.clear(),
        Some(Value::Object(fields)) => fields.clear(),
        _ => {}
    }
}

/// The same of each GPU.
fn empty_each(receipt: &mut Value, path: &[&str]) {
    let devices = receipt.pointer_mut("/gpu/devices").and_then(Value::as_array_mut);
    for device in devices.into_iter().flatten() {
        empty(device, path);
    }
}

/// Says on the receipt what is not on it.
fn told(mut receipt: Value, left_out: &[&str]) -> Value {
    let note = format!(
        "the receipt was longer than the {RECEIPT_MAX_BYTES} bytes that the ledger keeps, without {}",
        left_out.join(", ")
    );
    if let Some(Value::Array(notes)) = receipt.pointer_mut("/outcome/degraded") {
        notes.push(note.into());
    } else if let Some(fields) = receipt.as_object_mut() {
        fields.insert("outcome".to_owned(), json!({ "degraded": [note] }));
    }
    receipt
}

/// What a kept receipt says. Nobody has read it when it was kept: one that no program reads is told so.
#[must_use]
pub fn shown(text: &str) -> Value {
    let read = serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let unreadable = |why: String| json!({ "outcome": { "degraded": [format!("the receipt cannot be read: {why}")] } });
    match read {
        Ok(receipt) if is_deeper(&receipt, DEPTH_MAX) => {
            unreadable(format!("it is nested more than {DEPTH_MAX} times"))
        }
        Ok(receipt) => receipt,
        Err(why) => unreadable(why),
    }
}

/// It stands within other documents, of whose depth clients read 128.
const DEPTH_MAX: usize = 64;

fn is_deeper(value: &Value, depth_max: usize) -> bool {
    let Some(below) = depth_max.checked_sub(1) else { return true };
    match value {
        Value::Array(list) => list.iter().any(|value| is_deeper(value, below)),
        Value::Object(fields) => fields.values().any(|value| is_deeper(value, below)),
        _ => false,
    }
}

impl ReceiptText {
    /// Of a receipt, without details where it is too long with them.
    #[must_use]
    pub fn of(receipt: &impl Serialize) -> Self {
        let text = serde_json::value::to_raw_value(receipt);
        text.map_or_else(|_| Self::default(), |text| Self(text).shortened())
    }

    /// The same, of a sidecar that did not do that.
    #[must_use]
    pub fn shortened(self) -> Self {
        if self.as_str().len() <= RECEIPT_MAX_BYTES {
            return self;
        }
        let (mut receipt, mut left_out) = (serde_json::from_str(self.as_str()).unwrap_or_default(), Vec::new());
        for (what, leave_out) in DETAILS {
            leave_out(&mut receipt);
            left_out.push(what);
            let text = serde_json::value::to_raw_value(&told(receipt.clone(), &left_out));
            if let Some(text) = text.ok().filter(|text| text.get().len() <= RECEIPT_MAX_BYTES) {
                return Self(text);
            }
        }
        let nothing = told(json!({ "schema": "jobmeter.receipt/1" }), &["any detail"]);
        serde_json::value::to_raw_value(&nothing).map_or_else(|_| Self::default(), Self)
    }

    /// The JSON, as it came or as it was shortened.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(devices: usize, labels: usize, name: &str) -> Value {
        let device = json!({ "uuid": "GPU-1", "utilization": { "column_seconds": 1, "percent": vec![50; 96] } });
        let labels: serde_json::Map<String, Value> =
            (0..labels).map(|at| (format!("label-{at}"), "x".repeat(1_000).into())).collect();
        json!({
            "job": { "name": name, "labels": labels, "command": ["true"] },
            "outcome": { "reason": "completed", "degraded": ["a"] },
            "cpu": { "busiest": [{ "pid": 1 }] },
            "gpu": { "devices": vec![device; devices], "notes": [], "refused": [] },
        })
    }

    fn kept(devices: usize, labels: usize, name: &str) -> Value {
        let text = ReceiptText::of(&receipt(devices, labels, name));
        assert!(text.as_str().len() <= RECEIPT_MAX_BYTES);
        assert_eq!(text.clone().shortened(), text);
        serde_json::from_str(text.as_str()).unwrap()
    }

    #[test]
    fn a_receipt_that_is_too_long_loses_details_and_says_which() {
        assert_eq!(kept(2, 3, "n"), receipt(2, 3, "n"));
        let wide = kept(64, 0, "n");
        assert_eq!(wide["gpu"]["devices"].as_array().unwrap().len(), 64);
        assert_eq!(wide["gpu"]["devices"][0]["utilization"]["percent"], json!([]));
        assert_eq!(wide["cpu"]["busiest"], json!([{ "pid": 1 }]));
        let told = "the receipt was longer than the 16384 bytes that the ledger keeps, without the columns of GPU use";
        assert_eq!(wide["outcome"], json!({ "reason": "completed", "degraded": ["a", told] }));
        let labelled = kept(2, 64, "n");
        assert_eq!((&labelled["job"]["labels"], &labelled["job"]["command"]), (&json!({}), &json!([])));
        assert_eq!(labelled["outcome"]["reason"], "completed");
        // Whatever else somebody puts on it.
        let foul = kept(2, 2, &"x".repeat(200_000));
        assert!(foul["outcome"]["degraded"][0].as_str().unwrap().ends_with("without any detail"), "{foul}");
    }

    #[test]
    fn what_nobody_can_read_is_told_and_stops_no_reader() {
        for text in [&"[".repeat(8_000), &format!("{}1{}", "[".repeat(80), "]".repeat(80)), r#"{"a": "\ud800"}"#, ""] {
            let told = shown(text);
            assert!(
                told["outcome"]["degraded"][0].as_str().unwrap().starts_with("the receipt cannot be read"),
                "{told}"
            );
        }
        assert_eq!(shown(r#"{"a": [1]}"#), json!({ "a": [1] }));
    }

    #[test]
    fn what_is_no_receipt_is_kept_as_it_came_and_bounded() {
        let sent = r#"{"a": 1.50, "a": 2}"#;
        let text: ReceiptText = serde_json::from_str(sent).unwrap();
        assert_eq!(text.shortened().as_str(), sent);
        let long: ReceiptText = serde_json::from_value(json!(["x"; 1].repeat(10_000))).unwrap();
        assert!(long.shortened().as_str().contains("without any detail"));
    }
}
