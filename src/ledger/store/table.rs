//! The tables, as far as they are written: their columns, and what makes a row the same row.

/// How a column is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A 64-bit integer.
    Int,
    /// Text.
    Text,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The first of its columns that are its key.
    pub key_count: usize,
    /// In the order in which rows give them.
    pub columns: &'static [(&'static str, Kind)],
    /// What becomes of a row that is there.
    pub mode: Mode,
    /// A row that is there is written again only where this column of it is the same.
    pub fixed: Option<&'static str>,
    /// Columns that a row which is there keeps. SQLite writes the indexes of every column that it is told to set, whether
    /// its value is another or not.
    pub kept: &'static [&'static str],
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Each is new: what is written twice is an error.
    Append,
    /// One that is there is replaced.
    Upsert,
    /// One that is there is added to.
    Sum,
    /// Each is there: what has to be made is an error. Columns that are not named stay as they are.
    Update,
}

use Kind::{Int, Text};

/// Rows of it are written again and again.
const UPSERTED: Table = Table { name: "", key_count: 1, mode: Mode::Upsert, fixed: None, kept: &[], columns: &[] };
/// Rows of it are written once.
const APPENDED: Table = Table { mode: Mode::Append, ..UPSERTED };

/// See [`crate::ledger::book::rows::Account`].
pub(super) static ACCOUNT: Table = Table {
    name: "account",
    columns: &[
        ("owner", Text),
        ("credit_limit", Int),
        ("length", Text),
        ("period", Int),
        ("ends", Int),
        ("next_set", Int),
        ("next_limit", Int),
        ("next_length", Text),
        ("entries", Int),
        ("live", Int),
        ("beyond", Int),
        ("silent", Int),
        ("rate", Int),
        ("waits_until_us", Int),
        ("silent_from_us", Int),
        ("revision", Int),
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Period`].
pub(super) static PERIOD: Table = Table {
    name: "period",
    key_count: 2,
    columns: &[
        ("owner", Text),
        ("start", Int),
        ("ends", Int),
        ("credit_limit", Int),
        ("adjusted", Int),
        ("charged", Int),
        ("held", Int),
        ("alerted", Int),
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Grant`].
pub(super) static GRANT: Table = Table {
    name: "credit_grant",
    key_count: 2,
    columns: &[
        ("owner", Text),
        ("id", Int),
        ("amount", Int),
        ("charged", Int),
        ("held", Int),
        ("expires_s", Int),
        ("why", Text),
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Job`].
pub(super) static JOB: Table = Table {
    name: "job",
    fixed: Some("owner"),
    kept: &["owner", "kind", "name", "started_us"],
    columns: &[
        ("id", Text),
        ("owner", Text),
        ("kind", Text),
        ("name", Text),
        ("credit_limit", Int),
        ("started_us", Int),
        ("stopped", Int),
        ("tokens", Int),
        ("tokens_charged", Int),
        ("tokens_overshoot", Int),
        ("charged", Int),
        ("held", Int),
        ("beyond", Int),
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Attempt`].
pub(super) static ATTEMPT: Table = Table {
    name: "attempt",
    fixed: Some("owner"),
    kept: &["job", "owner", "started_us", "rates"],
    columns: ATTEMPT_COLUMNS,
    ..UPSERTED
};

/// The same, where neither its period nor its end is another.
pub(super) static ATTEMPT_GOES_ON: Table = Table {
    name: "attempt",
    fixed: Some("owner"),
    kept: &["job", "owner", "started_us", "rates", "period", "ended_us"],
    columns: ATTEMPT_COLUMNS,
    ..UPSERTED
};

/// The same, where what it burned of the CPU is all that was new, see [`crate::ledger::book::Steady`]: most reports.
pub(super) static ATTEMPT_BURNS: Table = Table {
    name: "attempt",
    mode: Mode::Update,
    columns: &[
        ("id", Text),
        ("lease_until_us", Int),
        ("live", Int),
        ("seq", Int),
        ("cpu_us", Int),
        ("cpu_allocated_us", Int),
        ("accounted_cpu", Int),
        ("told_cpu_us", Int),
        ("charged_cpu", Int),
        ("ceilings", Text),
        ("holds", Text),
        ("waits", Int),
        ("rate", Int),
        ("rate_since_us", Int),
        ("rate_from", Int),
        ("last_entry", Int),
    ],
    ..UPSERTED
};

const ATTEMPT_COLUMNS: &[(&str, Kind)] = &[
    ("id", Text),
    ("job", Text),
    ("owner", Text),
    ("period", Int),
    ("started_us", Int),
    ("lease_until_us", Int),
    ("live", Int),
    ("ended_us", Int),
    ("reason", Text),
    ("told", Int),
    ("seq", Int),
    ("rates", Int),
    ("cpus_ppm", Int),
    // Their weights, added up, in parts per million.
    ("gpus", Int),
    ("stop_us", Int),
    ("cpu_us", Int),
    ("cpu_allocated_us", Int),
    ("gpu_usage", Text),
    ("tokens", Int),
    ("told_tokens", Int),
    ("accounted_cpu", Int),
    ("accounted_gpu", Int),
    ("accounted_token", Int),
    ("told_cpu_us", Int),
    ("told_gpu_us", Int),
    ("charged_cpu", Int),
    ("charged_gpu", Int),
    ("charged_token", Int),
    ("overshoot", Int),
    ("ceilings", Text),
    ("holds", Text),
    ("next_period", Int),
    ("next_amount", Int),
    ("waits", Int),
    ("rate", Int),
    ("rate_since_us", Int),
    ("rate_from", Int),
    ("last_entry", Int),
];

/// See [`crate::ledger::book::rows::Reservation`].
pub(super) static RESERVATION: Table = Table {
    name: "reservation",
    fixed: Some("owner"),
    kept: &["job", "owner", "tokens", "rates"],
    columns: &[
        ("id", Text),
        ("job", Text),
        ("owner", Text),
        ("tokens", Int),
        ("rates", Int),
        ("until_us", Int),
        ("holds", Text),
        ("open", Int),
        ("settled_us", Int),
        ("used", Int),
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Alert`].
pub(super) static ALERT: Table = Table {
    name: "alert",
    key_count: 4,
    columns: &[
        ("owner", Text),
        ("period", Int),
        ("percent", Int),
        ("at_us", Int),
        ("spent", Int),
        ("spendable", Int),
        ("sent_us", Int),
        ("tries", Int),
        ("next_try_us", Int),
    ],
    ..UPSERTED
};

/// Who an attempt is; JSON.
pub(super) static IDENTITY: Table =
    Table { name: "identity", columns: &[("attempt", Text), ("body", Text)], ..APPENDED };

/// What an attempt said last; JSON.
pub(super) static RECEIPT: Table = Table { name: "receipt", columns: &[("attempt", Text), ("body", Text)], ..UPSERTED };

/// See [`crate::ledger::book::rows::Entry`].
pub(super) static ENTRY: Table = Table {
    name: "entry",
    key_count: 2,
    columns: &[
        ("owner", Text),
        ("number", Int),
        ("at_us", Int),
        ("kind", Text),
        ("period", Int),
        ("day", Int),
        ("source", Int),
        ("amount", Int),
        ("cpu", Int),
        ("gpu", Int),
        ("token", Int),
        ("cpu_us", Int),
        ("gpu_us", Int),
        ("tokens", Int),
        ("job", Text),
        ("attempt", Text),
        ("by", Text),
        ("why", Text),
        ("previous", Int),
    ],
    ..APPENDED
};

/// What an account used on a day: sums over its entries.
pub(super) static USAGE_DAY: Table = Table {
    name: "usage_day",
    key_count: 2,
    mode: Mode::Sum,
    columns: &[
        ("owner", Text),
        ("day", Int),
        ("amount", Int),
        ("cpu", Int),
        ("gpu", Int),
        ("token", Int),
        ("cpu_us", Int),
        ("gpu_us", Int),
        ("tokens", Int),
    ],
    ..UPSERTED
};

/// A key and its effect are one transaction; the same key with another body is refused.
pub(super) static ONCE: Table =
    Table { name: "once", columns: &[("key", Text), ("body", Text), ("answer", Text)], ..APPENDED };

/// Versions of the rate card; JSON.
pub(super) static RATES: Table =
    Table { name: "rates", columns: &[("version", Int), ("card", Text), ("since_us", Int), ("by", Text)], ..APPENDED };

/// Keys of the service.
pub(super) static KEY: Table = Table {
    name: "api_key",
    columns: &[
        ("id", Text),
        ("hash", Text),
        ("name", Text),
        ("scope", Text),
        ("owner", Text),
        ("created_us", Int),
        ("revoked_us", Int),
    ],
    ..UPSERTED
};

/// Each restore of a copy begins one.
pub(super) static EPOCH: Table =
    Table { name: "epoch", columns: &[("number", Int), ("settles_until_us", Int)], ..APPENDED };

impl Table {
    /// The names of all columns, for a statement.
    #[must_use]
    pub fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// What happens with a row that is there, behind an `INSERT`.
    #[must_use]
    pub fn on_conflict(&self) -> String {
        let set = |column: &str| match self.mode {
            Mode::Sum => format!("{column} = {}.{column} + excluded.{column}", self.name),
            _ => format!("{column} = excluded.{column}"),
        };
        if self.mode == Mode::Append {
            return String::new();
        }
        let keys: Vec<_> = self.columns.iter().take(self.key_count).map(|(name, _)| *name).collect();
        let others = self.columns.iter().skip(self.key_count).map(|(name, _)| *name);
        let sets: Vec<_> = others.filter(|column| !self.kept.contains(column)).map(set).collect();
        let (keys, sets) = (keys.join(", "), sets.join(", "));
        let fixed = self.fixed.map(|column| format!(" WHERE {}.{column} = excluded.{column}", self.name));
        format!(" ON CONFLICT ({keys}) DO UPDATE SET {sets}{}", fixed.unwrap_or_default())
    }
}
