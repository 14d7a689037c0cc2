-- One rule for a balance: what corrections took of each source, what an account owes, and what each period shows.
ALTER TABLE account ADD COLUMN debt BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN suspended BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN carries_over BIGINT NOT NULL DEFAULT 0;
-- The grant that what is carried over goes to; NULL before that.
ALTER TABLE account ADD COLUMN carried_grant BIGINT;
ALTER TABLE credit_grant ADD COLUMN taken BIGINT NOT NULL DEFAULT 0;
ALTER TABLE credit_grant ADD COLUMN revoked_s BIGINT;
-- Less than zero where a correction of before gave to the allowance itself.
ALTER TABLE period RENAME COLUMN adjusted TO taken;
UPDATE period SET taken = -taken WHERE taken <> 0;
-- Charged in it, whatever paid; and by how much corrections and debt moved it.
ALTER TABLE period ADD COLUMN spent BIGINT NOT NULL DEFAULT 0;
ALTER TABLE period ADD COLUMN corrected BIGINT NOT NULL DEFAULT 0;
UPDATE period SET spent = e.spent, corrected = e.corrected FROM (SELECT owner, period,
    CAST(coalesce(sum(CASE WHEN kind IN ('charge', 'correct', 'tokens') THEN amount END), 0) AS BIGINT) AS spent,
    CAST(coalesce(sum(CASE WHEN kind = 'adjust' AND amount < 0 THEN amount END), 0) AS BIGINT) AS corrected
    FROM entry GROUP BY owner, period) e WHERE e.owner = period.owner AND e.period = period.start;
-- What was burned and charged to nobody, for a figure: few have any.
CREATE INDEX attempt_overshoot ON attempt (overshoot) WHERE overshoot > 0;
CREATE INDEX job_overshoot ON job (tokens_overshoot) WHERE tokens_overshoot > 0;
-- The newest time that was believed, and what the clock that nobody sets said then on the machine that saw it.
CREATE TABLE clock (one BIGINT PRIMARY KEY, seen_us BIGINT NOT NULL, boot TEXT NOT NULL, boottime_us BIGINT NOT NULL) /* by key */;
-- What an attempt's declared resources can have done up to its last word: CPU time, time, and when that was. NULL where nobody knows.
ALTER TABLE attempt ADD COLUMN could_cpu_us BIGINT;
ALTER TABLE attempt ADD COLUMN alive_us BIGINT;
ALTER TABLE attempt ADD COLUMN heard_us BIGINT;
-- The newest time that the copy knew which a restore put in the ledger's place; 0 where nobody knows.
ALTER TABLE epoch ADD COLUMN known_us BIGINT NOT NULL DEFAULT 0;
