-- Each restore of a copy begins an epoch; until `settles_until_us` running attempts report, and nothing new is leased.
CREATE TABLE epoch (number INTEGER PRIMARY KEY, settles_until_us INTEGER NOT NULL) STRICT;
