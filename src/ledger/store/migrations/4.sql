-- The entries of an attempt are a chain, the newest first: an index over all of them would have each report write a page of
-- its own somewhere in it. `last_entry` is 0 where none is chained yet; entries without `previous` are found by their job.
ALTER TABLE attempt ADD COLUMN last_entry BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN previous BIGINT;
DROP INDEX entry_of_job;
CREATE INDEX entry_unchained ON entry (job) WHERE job IS NOT NULL AND previous IS NULL;
