-- All amounts are nanocredits, all times of day µs since 1970 (`_us`) or, for periods, seconds.
CREATE TABLE account (
    user TEXT PRIMARY KEY, credit_limit INTEGER, length TEXT NOT NULL, period INTEGER NOT NULL, ends INTEGER NOT NULL,
    next_set INTEGER NOT NULL DEFAULT 0, next_limit INTEGER, next_length TEXT
) STRICT, WITHOUT ROWID;
-- Half-open, one after the other; never moved, never overlapping.
CREATE TABLE period (
    user TEXT NOT NULL, start INTEGER NOT NULL, ends INTEGER NOT NULL, credit_limit INTEGER,
    adjusted INTEGER NOT NULL DEFAULT 0, charged INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (user, start), CHECK (start < ends)
) STRICT, WITHOUT ROWID;
CREATE TABLE credit_grant (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0),
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged BETWEEN 0 AND amount), expires_s INTEGER, why TEXT NOT NULL
) STRICT;
CREATE INDEX grant_user ON credit_grant (user);
-- What is held, for whom and from where (0: the allowance of the period, else a grant).
CREATE TABLE hold (
    attempt TEXT NOT NULL, user TEXT NOT NULL, period INTEGER NOT NULL, source INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0), PRIMARY KEY (attempt, period, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_user ON hold (user, source, period);
CREATE TABLE rates (version INTEGER PRIMARY KEY, card TEXT NOT NULL, since_us INTEGER NOT NULL, by TEXT NOT NULL) STRICT;
CREATE TABLE job (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, credit_limit INTEGER, started_us INTEGER NOT NULL,
    stopped INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, tokens_charged INTEGER NOT NULL DEFAULT 0,
    tokens_overshoot INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX job_started ON job (user, started_us);
CREATE TABLE attempt (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES job (id), user TEXT NOT NULL, started_us INTEGER NOT NULL,
    period INTEGER NOT NULL, lease_until_us INTEGER NOT NULL, ended_us INTEGER, reason TEXT, charged INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL, receipt TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_job ON attempt (job);
CREATE INDEX attempt_live ON attempt (user) WHERE ended_us IS NULL;
-- Append-only: every balance can be replayed from it.
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, kind TEXT NOT NULL, user TEXT NOT NULL, period INTEGER NOT NULL,
    day INTEGER NOT NULL, source INTEGER NOT NULL, amount INTEGER NOT NULL, cpu INTEGER NOT NULL, gpu INTEGER NOT NULL,
    token INTEGER NOT NULL, cpu_us INTEGER NOT NULL, gpu_us INTEGER NOT NULL, tokens INTEGER NOT NULL,
    job TEXT, attempt TEXT, by TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE INDEX entry_user ON entry (user, day);
CREATE INDEX entry_job ON entry (job) WHERE job IS NOT NULL;
CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
-- A key and its effect are one transaction; the same key with another body is refused.
CREATE TABLE once (key TEXT PRIMARY KEY, body TEXT NOT NULL, answer TEXT NOT NULL) STRICT, WITHOUT ROWID;
