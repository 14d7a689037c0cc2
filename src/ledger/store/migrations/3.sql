-- What each account used on each UTC day: sums over its entries, so that a report over a month reads days.
CREATE TABLE usage_day (
    owner TEXT NOT NULL, day BIGINT NOT NULL, amount BIGINT NOT NULL, cpu BIGINT NOT NULL, gpu BIGINT NOT NULL,
    token BIGINT NOT NULL, cpu_us BIGINT NOT NULL, gpu_us BIGINT NOT NULL, tokens BIGINT NOT NULL, PRIMARY KEY (owner, day)
) /* by key */;
CREATE INDEX usage_day_of_all ON usage_day (day);
INSERT INTO usage_day SELECT owner, day, CAST(sum(amount) AS BIGINT), CAST(sum(cpu) AS BIGINT), CAST(sum(gpu) AS BIGINT),
    CAST(sum(token) AS BIGINT), CAST(sum(cpu_us) AS BIGINT), CAST(sum(gpu_us) AS BIGINT), CAST(sum(tokens) AS BIGINT)
    FROM entry WHERE kind IN ('charge', 'correct', 'tokens') GROUP BY owner, day;
-- Reports were read by it.
DROP INDEX entry_of_day;
