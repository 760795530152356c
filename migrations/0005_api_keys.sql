-- A caller that serves many users needs more than one that serves one.
ALTER TABLE api_keys
    ADD COLUMN requests_per_second integer CHECK (requests_per_second BETWEEN 1 AND 1000000);

COMMENT ON COLUMN api_keys.requests_per_second IS 'How many requests a second it may send to each api process; NULL: what the server allows by default.';
