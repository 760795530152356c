-- API keys: who may use the API, and for what.

CREATE TABLE api_keys (
    id                  bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT api_keys_pkey PRIMARY KEY,
    name                text        NOT NULL,
    secret_hash         bytea       NOT NULL,
    scopes              text[]      NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    revoked_at          timestamptz,
    requests_per_second integer,
    CONSTRAINT api_keys_name_length        CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_secret_hash_length CHECK (length(secret_hash) = 32),
    CONSTRAINT api_keys_scopes_known       CHECK (scopes <@ ARRAY['shows:read', 'shows:write', 'bookings:read', 'bookings:write', 'admin']),
    CONSTRAINT api_keys_requests_per_second_range CHECK (requests_per_second BETWEEN 1 AND 1000000),
    CONSTRAINT api_keys_created_at_range CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    CONSTRAINT api_keys_revoked_at_range CHECK (revoked_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
);

-- A revoked key keeps its name; another one can have it again.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;

COMMENT ON TABLE  api_keys                     IS 'API keys. A revoked one stays, for the record.';
COMMENT ON COLUMN api_keys.id                  IS 'Identity; the first part of the key.';
COMMENT ON COLUMN api_keys.name                IS 'For people; 1 to 100 characters.';
COMMENT ON COLUMN api_keys.secret_hash         IS 'SHA-256 of the secret, which has 256 random bits and is stored nowhere.';
COMMENT ON COLUMN api_keys.scopes              IS 'What it may do.';
COMMENT ON COLUMN api_keys.created_at          IS 'When the row was written.';
COMMENT ON COLUMN api_keys.revoked_at          IS 'From when on it is no longer valid; NULL while it is.';
COMMENT ON COLUMN api_keys.requests_per_second IS 'How many requests a second it may send to each api process; NULL: the server''s default.';
