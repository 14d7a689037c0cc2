-- All amounts are nanocredits, all times µs (`_us`), those of periods and days seconds since 1970 UTC; flags are 0 and 1.
CREATE TABLE account (
    owner TEXT PRIMARY KEY, credit_limit BIGINT, length TEXT NOT NULL, period BIGINT NOT NULL, ends BIGINT NOT NULL,
    next_set BIGINT NOT NULL, next_limit BIGINT, next_length TEXT, entries BIGINT NOT NULL,
    live BIGINT NOT NULL, beyond BIGINT NOT NULL, silent BIGINT NOT NULL, rate BIGINT NOT NULL,
    waits_until_us BIGINT NOT NULL, silent_from_us BIGINT NOT NULL
) /* by key */;
-- Half-open, one after the other; never moved, never overlapping.
CREATE TABLE period (
    owner TEXT NOT NULL, start BIGINT NOT NULL, ends BIGINT NOT NULL, credit_limit BIGINT, adjusted BIGINT NOT NULL,
    charged BIGINT NOT NULL CHECK (charged >= 0), held BIGINT NOT NULL CHECK (held >= 0),
    PRIMARY KEY (owner, start), CHECK (start < ends)
) /* by key */;
CREATE TABLE credit_grant (
    owner TEXT NOT NULL, id BIGINT NOT NULL CHECK (id > 0), amount BIGINT NOT NULL CHECK (amount > 0),
    charged BIGINT NOT NULL CHECK (charged >= 0), held BIGINT NOT NULL CHECK (held >= 0), expires_s BIGINT, why TEXT NOT NULL,
    PRIMARY KEY (owner, id), CHECK (charged + held <= amount)
) /* by key */;
CREATE TABLE job (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, credit_limit BIGINT, started_us BIGINT NOT NULL,
    stopped BIGINT NOT NULL, tokens BIGINT NOT NULL, tokens_charged BIGINT NOT NULL, tokens_overshoot BIGINT NOT NULL,
    charged BIGINT NOT NULL, held BIGINT NOT NULL, beyond BIGINT NOT NULL
) /* by key */;
CREATE INDEX job_of_owner ON job (owner, started_us, id);
CREATE INDEX job_started ON job (started_us, id);
CREATE TABLE attempt (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT NOT NULL, period BIGINT NOT NULL, started_us BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL, live BIGINT NOT NULL, ended_us BIGINT, reason TEXT, told BIGINT NOT NULL,
    seq BIGINT NOT NULL, rates BIGINT NOT NULL, cpus_ppm BIGINT NOT NULL, gpus BIGINT NOT NULL, stop_us BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL, cpu_allocated_us BIGINT NOT NULL, gpu_usage TEXT, tokens BIGINT NOT NULL, told_tokens BIGINT NOT NULL,
    accounted_cpu BIGINT NOT NULL, accounted_gpu BIGINT NOT NULL, accounted_token BIGINT NOT NULL,
    told_cpu_us BIGINT NOT NULL, told_gpu_us BIGINT NOT NULL,
    charged_cpu BIGINT NOT NULL, charged_gpu BIGINT NOT NULL, charged_token BIGINT NOT NULL, overshoot BIGINT NOT NULL,
    ceilings TEXT NOT NULL, holds TEXT NOT NULL, next_period BIGINT, next_amount BIGINT, waits BIGINT NOT NULL,
    rate BIGINT NOT NULL, rate_since_us BIGINT NOT NULL, rate_from BIGINT NOT NULL
) /* by key */;
CREATE INDEX attempt_of_job ON attempt (job);
CREATE INDEX attempt_unended ON attempt (owner, period) WHERE ended_us IS NULL;
-- JSON: who an attempt is, and what it said last.
CREATE TABLE identity (attempt TEXT PRIMARY KEY, body TEXT NOT NULL) /* by key */;
CREATE TABLE receipt (attempt TEXT PRIMARY KEY, body TEXT NOT NULL) /* by key */;
-- Append-only: every balance can be replayed from it. Numbers are gapless within an owner.
CREATE TABLE entry (
    owner TEXT NOT NULL, number BIGINT NOT NULL, at_us BIGINT NOT NULL, kind TEXT NOT NULL, period BIGINT NOT NULL,
    day BIGINT NOT NULL, source BIGINT NOT NULL, amount BIGINT NOT NULL, cpu BIGINT NOT NULL, gpu BIGINT NOT NULL,
    token BIGINT NOT NULL, cpu_us BIGINT NOT NULL, gpu_us BIGINT NOT NULL, tokens BIGINT NOT NULL,
    job TEXT, attempt TEXT, by TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (owner, number)
) /* by key */;
CREATE INDEX entry_of_day ON entry (owner, day);
CREATE INDEX entry_of_job ON entry (job) WHERE job IS NOT NULL;
-- A key and its effect are one transaction; the same key with another body is refused.
CREATE TABLE once (key TEXT PRIMARY KEY, body TEXT NOT NULL, answer TEXT NOT NULL) /* by key */;
-- Keys of the ledger service: hashes alone.
CREATE TABLE api_key (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL, owner TEXT, created_us BIGINT NOT NULL,
    revoked_us BIGINT
) /* by key */;
CREATE TABLE rates (version BIGINT PRIMARY KEY, card TEXT NOT NULL, since_us BIGINT NOT NULL, by TEXT NOT NULL) /* by key */;
-- Each restore of a copy begins an epoch; until `settles_until_us` running attempts report, and nothing new is leased.
CREATE TABLE epoch (number BIGINT PRIMARY KEY, settles_until_us BIGINT NOT NULL) /* by key */;
