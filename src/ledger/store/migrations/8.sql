-- Attempts and jobs belong to a principal: the node, cluster or service that opened them. Empty for those of before, and for those
-- that were opened without a service.
ALTER TABLE attempt ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE reservation ADD COLUMN principal TEXT NOT NULL DEFAULT '';
-- A scheduler's id is one among those of its principal for an account, so that nobody takes another's.
ALTER TABLE job RENAME TO job_before;
CREATE TABLE job (
    owner TEXT NOT NULL, principal TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, credit_limit BIGINT,
    started_us BIGINT NOT NULL, stopped BIGINT NOT NULL, tokens BIGINT NOT NULL, tokens_charged BIGINT NOT NULL,
    tokens_overshoot BIGINT NOT NULL, charged BIGINT NOT NULL, held BIGINT NOT NULL, beyond BIGINT NOT NULL,
    PRIMARY KEY (owner, principal, id)
) /* by key */;
INSERT INTO job SELECT owner, '', id, kind, name, credit_limit, started_us, stopped, tokens, tokens_charged, tokens_overshoot,
    charged, held, beyond FROM job_before;
DROP TABLE job_before;
CREATE INDEX job_of_owner ON job (owner, started_us, id, principal);
CREATE INDEX job_started ON job (started_us, id, owner, principal);
CREATE INDEX job_of_id ON job (id);
CREATE INDEX job_overshoot ON job (tokens_overshoot) WHERE tokens_overshoot > 0;
DROP INDEX attempt_of_job;
CREATE INDEX attempt_of_job ON attempt (owner, job);
-- Many accounts may have a job of the same id. Of the owner itself a planner would rather go through all entries of the account.
DROP INDEX entry_unchained;
CREATE INDEX entry_unchained ON entry ((owner || ''), job) WHERE job IS NOT NULL AND previous IS NULL;
-- For whom a key works, until when it is good (NULL: for ever), and when it was used last, to the hour. Keys of before work for
-- themselves: each has a principal of its own name, which the keys that follow it share.
ALTER TABLE api_key ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN ends_us BIGINT;
ALTER TABLE api_key ADD COLUMN used_us BIGINT;
UPDATE api_key SET principal = CASE WHEN name = '' THEN id ELSE name END;
