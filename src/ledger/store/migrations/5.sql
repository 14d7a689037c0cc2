-- Counts up with each transaction that changes the account, one of its attempts or one of its jobs: what was read of them
-- before is still so while it is the same.
ALTER TABLE account ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
