-- What an administrator has set for the ledger as a whole, by versions; no row before the first change. `outlasting_ms` is the longest
-- lease that was given before and may still be out when the version begins to count.
CREATE TABLE ledger_setting (
    version BIGINT PRIMARY KEY, lease_ms BIGINT NOT NULL, outlasting_ms BIGINT NOT NULL, day_limit BIGINT, month_limit BIGINT,
    period TEXT NOT NULL, unknown_users BIGINT NOT NULL, since_us BIGINT NOT NULL, by TEXT NOT NULL
) /* by key */;
-- Attempts that can fall silent, without those that have: of these an account may have tens of thousands.
CREATE INDEX attempt_live ON attempt (owner) WHERE ended_us IS NULL AND live = 1;
-- Grants that are good, without those that expired, of which an account may have thousands.
CREATE INDEX grant_held ON credit_grant (owner) WHERE held > 0;
CREATE INDEX grant_good ON credit_grant (owner, (coalesce(expires_s, 9223372036854775807)))
    WHERE charged + taken < amount AND revoked_s IS NULL;
