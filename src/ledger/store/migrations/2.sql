-- Credits set aside for tokens, until they are settled or `until_us` has passed.
CREATE TABLE reservation (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT NOT NULL, tokens BIGINT NOT NULL, rates BIGINT NOT NULL,
    until_us BIGINT NOT NULL, holds TEXT NOT NULL, open BIGINT NOT NULL, settled_us BIGINT, used BIGINT NOT NULL
) /* by key */;
CREATE INDEX reservation_open ON reservation (owner, until_us) WHERE open = 1;
-- How far of what can be spent in it was told to who watches, in percent.
ALTER TABLE period ADD COLUMN alerted BIGINT NOT NULL DEFAULT 0;
-- What is to be told, and whether it was.
CREATE TABLE alert (
    owner TEXT NOT NULL, period BIGINT NOT NULL, percent BIGINT NOT NULL, at_us BIGINT NOT NULL, spent BIGINT NOT NULL,
    spendable BIGINT NOT NULL, sent_us BIGINT, tries BIGINT NOT NULL, next_try_us BIGINT NOT NULL,
    PRIMARY KEY (owner, period, percent, at_us)
) /* by key */;
CREATE INDEX alert_unsent ON alert (next_try_us) WHERE sent_us IS NULL;
