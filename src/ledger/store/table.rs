//! The tables, as far as they are written: their columns, and what makes a row the same row.

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The first of its columns that are its key.
    pub key_count: usize,
    /// In the order in which rows give them.
    pub columns: &'static [&'static str],
    /// What becomes of a row that is there.
    pub mode: Mode,
    /// A row that is there is written again only where this column of it is the same.
    pub fixed: Option<&'static str>,
    /// Columns that a row which is there keeps. SQLite writes the indexes of every column that it is told to set, whether
    /// its value is another or not.
    pub kept: &'static [&'static str],
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Rows of it are written again and again.
const UPSERTED: Table = Table { name: "", key_count: 1, mode: Mode::Upsert, fixed: None, kept: &[], columns: &[] };
/// Rows of it are written once.
const APPENDED: Table = Table { mode: Mode::Append, ..UPSERTED };

/// See [`crate::ledger::book::rows::Account`].
pub(super) static ACCOUNT: Table = Table {
    name: "account",
    columns: &[
        "owner",
        "credit_limit",
        "length",
        "period",
        "ends",
        "next_set",
        "next_limit",
        "next_length",
        "entries",
        "live",
        "beyond",
        "silent",
        "rate",
        "waits_until_us",
        "silent_from_us",
        "debt",
        "suspended",
        "carries_over",
        "carried_grant",
        "turnover",
        "revision",
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Period`].
pub(super) static PERIOD: Table = Table {
    name: "period",
    key_count: 2,
    columns: &["owner", "start", "ends", "credit_limit", "taken", "charged", "held", "spent", "corrected", "alerted"],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Grant`].
pub(super) static GRANT: Table = Table {
    name: "credit_grant",
    key_count: 2,
    columns: &["owner", "id", "amount", "charged", "taken", "held", "expires_s", "revoked_s", "why"],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Job`].
pub(super) static JOB: Table = Table {
    name: "job",
    key_count: 3,
    kept: &["kind", "name", "started_us"],
    columns: &[
        "owner",
        "principal",
        "id",
        "kind",
        "name",
        "credit_limit",
        "started_us",
        "stopped",
        "tokens",
        "tokens_charged",
        "tokens_overshoot",
        "charged",
        "held",
        "beyond",
    ],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Attempt`].
pub(super) static ATTEMPT: Table = Table {
    name: "attempt",
    fixed: Some("owner"),
    kept: &["job", "owner", "principal", "started_us", "rates"],
    columns: ATTEMPT_COLUMNS,
    ..UPSERTED
};

/// The same, where neither its period nor its end is another.
pub(super) static ATTEMPT_GOES_ON: Table = Table {
    name: "attempt",
    fixed: Some("owner"),
    kept: &["job", "owner", "principal", "started_us", "rates", "period", "ended_us"],
    columns: ATTEMPT_COLUMNS,
    ..UPSERTED
};

/// The same, where what it burned of the CPU is all that was new, see [`crate::ledger::book::Extent`]: most reports.
pub(super) static ATTEMPT_BURNS: Table = Table {
    name: "attempt",
    mode: Mode::Update,
    columns: &[
        "id",
        "lease_until_us",
        "live",
        "seq",
        "cpu_us",
        "cpu_allocated_us",
        "accounted_cpu",
        "told_cpu_us",
        "charged_cpu",
        "ceilings",
        "holds",
        "waits",
        "rate",
        "rate_since_us",
        "rate_from",
        "last_entry",
        "could_cpu_us",
        "alive_us",
        "heard_us",
    ],
    ..UPSERTED
};

const ATTEMPT_COLUMNS: &[&str] = &[
    "id",
    "job",
    "owner",
    "period",
    "started_us",
    "lease_until_us",
    "live",
    "ended_us",
    "reason",
    "told",
    "seq",
    "rates",
    "cpus_ppm",
    // Their weights, added up, in parts per million.
    "gpus",
    "stop_us",
    "cpu_us",
    "cpu_allocated_us",
    "gpu_usage",
    "tokens",
    "told_tokens",
    "accounted_cpu",
    "accounted_gpu",
    "accounted_token",
    "told_cpu_us",
    "told_gpu_us",
    "charged_cpu",
    "charged_gpu",
    "charged_token",
    "overshoot",
    "ceilings",
    "holds",
    "next_period",
    "next_amount",
    "waits",
    "rate",
    "rate_since_us",
    "rate_from",
    "last_entry",
    "secret_hash",
    "could_cpu_us",
    "alive_us",
    "heard_us",
    "principal",
];

/// See [`crate::ledger::book::rows::Reservation`].
pub(super) static RESERVATION: Table = Table {
    name: "reservation",
    fixed: Some("owner"),
    kept: &["job", "owner", "principal", "tokens", "rates"],
    columns: &["id", "job", "owner", "principal", "tokens", "rates", "until_us", "holds", "open", "settled_us", "used"],
    ..UPSERTED
};

/// See [`crate::ledger::book::rows::Alert`].
pub(super) static ALERT: Table = Table {
    name: "alert",
    key_count: 4,
    columns: &["owner", "period", "percent", "at_us", "spent", "spendable", "sent_us", "tries", "next_try_us"],
    ..UPSERTED
};

/// Who an attempt is; JSON.
pub(super) static IDENTITY: Table = Table { name: "identity", columns: &["attempt", "body"], ..APPENDED };

/// What an attempt said last; JSON.
pub(super) static RECEIPT: Table = Table { name: "receipt", columns: &["attempt", "body"], ..UPSERTED };

/// See [`crate::ledger::book::rows::Entry`].
pub(super) static ENTRY: Table = Table {
    name: "entry",
    key_count: 2,
    columns: &[
        "owner", "number", "at_us", "kind", "period", "day", "source", "amount", "cpu", "gpu", "token", "cpu_us",
        "gpu_us", "tokens", "job", "attempt", "by", "why", "previous",
    ],
    ..APPENDED
};

/// What an account used on a day: sums over its entries.
pub(super) static USAGE_DAY: Table = Table {
    name: "usage_day",
    key_count: 2,
    mode: Mode::Sum,
    columns: &["owner", "day", "amount", "cpu", "gpu", "token", "cpu_us", "gpu_us", "tokens"],
    ..UPSERTED
};

/// A key and its effect are one transaction; the same key with another body is refused.
pub(super) static ONCE: Table = Table { name: "once", columns: &["key", "body", "answer"], ..APPENDED };

/// Whose each name is, see [`crate::domain::user_name::folded`].
pub(super) static NAME: Table = Table { name: "account_name", columns: &["folded", "owner"], ..APPENDED };

/// Versions of the rate card; JSON.
pub(super) static RATES: Table = Table { name: "rates", columns: &["version", "card", "since_us", "by"], ..APPENDED };

/// See [`crate::ledger::settings::LedgerSettings`], with the longest lease that was given before.
pub(super) static SETTING: Table = Table {
    name: "ledger_setting",
    columns: &[
        "version",
        "lease_ms",
        "outlasting_ms",
        "day_limit",
        "month_limit",
        "period",
        "unknown_users",
        "since_us",
        "by",
    ],
    ..APPENDED
};

/// Keys of the service.
pub(super) static KEY: Table = Table {
    name: "api_key",
    kept: &["used_us"],
    columns: &["id", "hash", "name", "scope", "owner", "created_us", "revoked_us", "principal", "ends_us", "used_us"],
    ..UPSERTED
};

/// Each restore of a copy begins one.
pub(super) static EPOCH: Table =
    Table { name: "epoch", columns: &["number", "settles_until_us", "known_us"], ..APPENDED };

/// The time that was believed last, see [`super::plausible`].
pub(super) static CLOCK: Table =
    Table { name: "clock", columns: &["one", "seen_us", "boot", "boottime_us"], ..UPSERTED };

impl Table {
    /// The names of all columns, for a statement.
    #[must_use]
    pub fn names(&self) -> String {
        self.columns.join(", ")
    }

    /// The columns that are its key, and the others.
    #[must_use]
    pub fn parts(&self) -> (&'static [&'static str], &'static [&'static str]) {
        self.columns.split_at_checked(self.key_count).unwrap_or((self.columns, &[]))
    }

    /// What happens with a row that is there, behind an `INSERT`.
    #[must_use]
    pub fn on_conflict(&self) -> String {
        let set = |column: &&str| match self.mode {
            Mode::Sum => format!("{column} = {}.{column} + excluded.{column}", self.name),
            _ => format!("{column} = excluded.{column}"),
        };
        if self.mode == Mode::Append {
            return String::new();
        }
        let (keys, others) = self.parts();
        let sets: Vec<_> = others.iter().filter(|column| !self.kept.contains(column)).map(set).collect();
        let (keys, sets) = (keys.join(", "), sets.join(", "));
        let fixed = self.fixed.map(|column| format!(" WHERE {}.{column} = excluded.{column}", self.name));
        format!(" ON CONFLICT ({keys}) DO UPDATE SET {sets}{}", fixed.unwrap_or_default())
    }
}
