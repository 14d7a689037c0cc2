//! Draws values: what a request is plausible with, what stands at the edges of a field's range, and what is no value of it.

use serde_json::{Map, Value, json};

/// Random numbers that a seed repeats (splitmix64).
#[derive(Debug)]
pub(super) struct Draw(pub(super) u64);

/// How far a request goes beyond what programs send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As a program would.
    Plausible,
    /// Within its type, anywhere.
    Edges,
    /// Anything.
    Wild,
}

/// What a sequence has met so far.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) attempts: Vec<String>,
    pub(super) jobs: Vec<String>,
    pub(super) reservations: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) periods: Vec<i64>,
    pub(super) cursors: Vec<String>,
    pub(super) rates_version: u64,
}

const USERS: [&str; 4] = ["ann", "bob", "Łukasz", "o'brien"];
const ODD_NAMES: [&str; 16] = [
    "",
    " ",
    "Ann",
    "ann ",
    "ANN",
    "e\u{301}",
    "é",
    "a\u{202e}b",
    "a\u{200b}b",
    "a\u{0}b",
    "a\nb",
    "..",
    "a/b",
    "%00",
    "'; --",
    "\u{1f469}\u{200d}\u{1f467}",
];
const JOBS: [&str; 5] = ["job-1", "job-2", "job-10", "chat", "j"];
const AMOUNTS: [&str; 14] = [
    "0",
    "1",
    "5",
    "0.000000001",
    "0.5",
    "-0.000000001",
    "-1",
    "1000000000",
    "999999999.999999999",
    "-1000000000",
    "1000000000.000000001",
    "1e30",
    "1e-9",
    "9223372036.854775807",
];
const SECONDS: [&str; 10] = [
    "0",
    "0.000001",
    "1",
    "3600",
    "9007199254.740992",
    "9007199254.740993",
    "18446744073709.551615",
    "-1",
    "1e30",
    "0.5",
];
const COUNTS: [&str; 12] = [
    "0",
    "1",
    "1000000",
    "1000000000000",
    "1000000000001",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1.5",
];
const SIGNED: [&str; 7] =
    ["0", "-1", "9000000000", "9000000001", "9223372036854775807", "-9223372036854775808", "1795521600"];

impl Draw {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count.max(1) as u64).unwrap()
    }

    /// Once in so many times.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    fn text(&mut self, all: &[&str]) -> String {
        self.of(all).map(|text| (*text).to_owned()).unwrap_or_default()
    }

    fn json(&mut self, all: &[&str]) -> Value {
        serde_json::from_str(&self.text(all)).unwrap()
    }

    pub(super) fn mood(&mut self) -> Mood {
        match self.below(10) {
            0..=5 => Mood::Plausible,
            6..=8 => Mood::Edges,
            _ => Mood::Wild,
        }
    }

    pub(super) fn uuid(&mut self) -> String {
        let bits = u128::from(self.number()) << 64 | u128::from(self.number());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// A text of this name.
    pub(super) fn named(&mut self, name: &str, mood: Mood, met: &Met) -> String {
        if mood == Mood::Wild && self.one_in(3) {
            return match self.below(3) {
                0 => "x".repeat(self.below(3_000)),
                1 => (0..self.below(20)).filter_map(|_| char::from_u32(self.number() as u32 & 0x1f_ffff)).collect(),
                _ => self.text(&ODD_NAMES),
            };
        }
        let is_odd = mood == Mood::Edges && self.one_in(6);
        match name {
            "user" if is_odd => self.text(&ODD_NAMES),
            "user" => self.text(&USERS),
            "job" if is_odd => self.text(&ODD_NAMES),
            "job" => {
                let known = self.of(&met.jobs).cloned().filter(|_| self.one_in(2));
                known.unwrap_or_else(|| self.text(&JOBS))
            }
            "attempt" | "reservation" => {
                let known = if name == "attempt" { &met.attempts } else { &met.reservations };
                let known = self.of(known).cloned();
                known.filter(|_| !self.one_in(5)).unwrap_or_else(|| self.uuid())
            }
            "id" => self.of(&met.keys).cloned().unwrap_or_else(|| "none".to_owned()),
            "before" => {
                let known = self.of(&met.cursors).cloned();
                known.unwrap_or_else(|| self.text(&JOBS))
            }
            "month" => self.text(&["2026-11", "2026-12", "2026-13", "x"]),
            "from" | "to" => self.text(&["2026-11-01", "2027-01-01", "2026-11-30T12:00:00Z", "9999-12-31", "x"]),
            "grant" | "count" => self.text(&["1", "2", "3", "20", "0", "4294967295", "4294967296", "-1"]),
            "idempotency-key" => self.text(&["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"]),
            "if-match" => self.text(&["*", "\"1\"", "\"2\"", "W/\"1\"", "1", "\"9\""]),
            "jobmeter-attempt-secret" => {
                if self.one_in(2) {
                    "0".repeat(64)
                } else {
                    "00".to_owned()
                }
            }
            "running" | "each" => self.text(&["true", "false", "1"]),
            "kind" => self.text(&["training", "generation", "python-session"]),
            "by" => self.text(&["day", "month"]),
            "task" => self.text(&["0", "1"]),
            _ => self.text(&["w", "why", "a reason", "NVIDIA H200"]),
        }
    }

    /// A number of this name.
    fn counted(&mut self, name: &str, mood: Mood, met: &Met) -> Value {
        if mood != Mood::Plausible && self.one_in(8) {
            return if matches!(name, "period" | "expiresAt" | "grant") {
                self.json(&SIGNED)
            } else {
                self.json(&COUNTS)
            };
        }
        match name {
            "period" => {
                let known = self.of(&met.periods).copied().unwrap_or(0);
                json!(known + [0, 0, 0, 86_400, -86_400][self.below(5)])
            }
            "expiresAt" => json!(4_000_000_000_i64),
            "grant" => json!(1 + self.below(3)),
            "version" => json!(met.rates_version.max(1)),
            "cpus_ppm" => json!([1_000_000, 1_000_000, 8_000_000, 1_000_000_000_000_u64][self.below(4)]),
            "stop_us" => json!(6_000),
            "seq" => json!(1 + self.below(50)),
            "ceiling_version" => json!(self.below(4)),
            "lastsMs" => json!(60_000),
            "cpu_weight_ppm" | "gpu_weight_ppm" | "weight_ppm" => json!([0, 1_000_000, 1_000_000_000][self.below(3)]),
            "gpu_holding_ppm" => json!([0, 500_000, 1_000_000][self.below(3)]),
            "tokens" | "count" | "reserve" => json!([0, 1, 1_000, 1_u64 << 53][self.below(4)]),
            _ => json!(self.below(3)),
        }
    }

    /// A value of a schema of the document.
    pub(super) fn value(&mut self, document: &Value, schema: &Value, name: &str, mood: Mood, met: &Met) -> Value {
        if mood == Mood::Wild && self.one_in(8) {
            let text = self.named("", Mood::Wild, met);
            return [Value::Null, json!([]), json!({}), json!(true), json!(text), json!(-1)][self.below(6)].clone();
        }
        if let Some(path) = schema["$ref"].as_str() {
            return self.value(document, &document.pointer(&path[1..]).unwrap().clone(), name, mood, met);
        }
        if let Some(one_of) = schema["oneOf"].as_array() {
            let chosen = if self.one_in(2) { one_of.last() } else { one_of.first() };
            return self.value(document, &chosen.unwrap().clone(), name, mood, met);
        }
        if let Some(words) = schema["enum"].as_array() {
            return self.of(words).cloned().unwrap();
        }
        let kind = match &schema["type"] {
            Value::Array(_) if self.one_in(2) => return Value::Null,
            Value::Array(kinds) => kinds[0].as_str().unwrap().to_owned(),
            kind => kind.as_str().unwrap_or("object").to_owned(),
        };
        match kind.as_str() {
            "null" => Value::Null,
            "boolean" => json!(self.one_in(2)),
            "integer" => self.counted(name, mood, met),
            "number" if schema["title"] == "Seconds" => {
                let plausible = if mood == Mood::Plausible || !self.one_in(6) { &SECONDS[..5] } else { &SECONDS[..] };
                self.json(plausible)
            }
            "number" => {
                let plausible = if mood == Mood::Plausible || !self.one_in(4) { &AMOUNTS[..5] } else { &AMOUNTS[..] };
                self.json(plausible)
            }
            "array" => {
                let count = if mood == Mood::Wild { self.below(70) } else { self.below(3) };
                (0..count).map(|_| self.value(document, &schema["items"], name, mood, met)).collect()
            }
            "string" if schema["format"] == "uuid" => {
                json!(self.named(if name == "reservation" { name } else { "attempt" }, mood, met))
            }
            "string" => json!(self.named(name, mood, met)),
            _ => self.object(document, schema, mood, met),
        }
    }

    fn object(&mut self, document: &Value, schema: &Value, mood: Mood, met: &Met) -> Value {
        let mut fields = Map::new();
        if schema["additionalProperties"].is_object() {
            for _ in 0..self.below(3) {
                let name = self.named("label", mood, met);
                fields.insert(name, self.value(document, &schema["additionalProperties"], "of_map", mood, met));
            }
        }
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.contains(&name.as_str());
            let is_left_out = if is_required { mood == Mood::Wild && self.one_in(10) } else { self.one_in(2) };
            if !is_left_out {
                fields.insert(name.clone(), self.value(document, schema, name, mood, met));
            }
        }
        if mood == Mood::Wild && self.one_in(10) {
            fields.insert("wishes".to_owned(), json!(3));
        }
        Value::Object(fields)
    }
}
