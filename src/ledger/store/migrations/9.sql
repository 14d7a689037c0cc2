-- What the names of accounts have in common that differ by case, by form or by spaces at their ends alone: each is somebody's,
-- and nobody new gets another one. Those of before are put in by the migration; of several that meet, the first.
CREATE TABLE account_name (folded TEXT PRIMARY KEY, owner TEXT NOT NULL) /* by key */;
-- What an account has come to, see the book's `turnover.rs`: of before as days, jobs and attempts say it, in steps of 2^20, so that
-- what is no sum any more does not stop the migration.
ALTER TABLE account ADD COLUMN turnover BIGINT NOT NULL DEFAULT 0;
UPDATE account SET turnover = (SELECT CASE WHEN steps < 4398046511104 THEN steps * 1048576 ELSE 4611686018427387904 END FROM
    (SELECT CAST(coalesce(sum(steps), 0) AS BIGINT) AS steps FROM
        (SELECT abs(amount) / 262144 + cpu_us / 1048576 + gpu_us / 1048576 + tokens / 1048576 + 4 AS steps FROM usage_day d
         WHERE d.owner = account.owner
         UNION ALL SELECT overshoot / 262144 + 1 FROM attempt a WHERE a.owner = account.owner AND overshoot > 0
         UNION ALL SELECT tokens_overshoot / 262144 + 1 FROM job j WHERE j.owner = account.owner AND tokens_overshoot > 0
        ) AS used) AS summed);
-- Counts up with each stop of a job and each suspension of an account, so that one look tells many sidecars that nothing was stopped.
CREATE TABLE stop_count (one BIGINT PRIMARY KEY, count BIGINT NOT NULL) /* by key */;
