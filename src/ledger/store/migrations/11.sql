-- What of it is one principal's, for its quota.
CREATE INDEX attempt_open_of_principal ON attempt (principal) WHERE ended_us IS NULL;
CREATE INDEX reservation_open_of_principal ON reservation (principal) WHERE open = 1;
