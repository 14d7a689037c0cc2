-- Sessions of browsers: hashes of their tokens alone, each with the key it was made with, and when it was made and last used.
CREATE TABLE session (
    hash TEXT PRIMARY KEY, key_id TEXT NOT NULL, made_us BIGINT NOT NULL, seen_us BIGINT NOT NULL
) /* by key */;
CREATE INDEX session_of_key ON session (key_id, made_us);
