-- Requests with an Idempotency-Key, written in the transaction of what they made.

CREATE TABLE idempotency_keys (
    owner       bigint      NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    show_id     bigint      NOT NULL,
    booking_id  bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey       PRIMARY KEY (owner, key),
    CONSTRAINT idempotency_keys_key_length CHECK (char_length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_created_at_range CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
)
WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- The oldest first, to prune them.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

COMMENT ON TABLE  idempotency_keys             IS 'The result of each request with an Idempotency-Key, so that its repetition makes nothing more. A refused request leaves no row.';
COMMENT ON COLUMN idempotency_keys.owner       IS 'The caller''s API key; 0 without one.';
COMMENT ON COLUMN idempotency_keys.key         IS 'The key as the client sent it; 1 to 255 characters.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of the request: a repetition has the same.';
COMMENT ON COLUMN idempotency_keys.show_id     IS 'The show that the request made, or the show of the booking that it made.';
COMMENT ON COLUMN idempotency_keys.booking_id  IS 'The booking that the request made; NULL when it made a show.';
COMMENT ON COLUMN idempotency_keys.created_at  IS 'When the row was written.';
