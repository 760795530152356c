-- What the public API needs beside the bookings themselves: limits of a show, holds that can be extended, lists that
-- cost the same however many bookings there are, requests that can be repeated, and who may ask for what.

-- Limits that each show sets for itself.
ALTER TABLE shows
    ADD COLUMN max_hold_seconds      integer,
    ADD COLUMN max_seats_per_booking integer NOT NULL DEFAULT 1000 CHECK (max_seats_per_booking BETWEEN 1 AND 1000),
    ADD COLUMN max_seats_per_user    integer CHECK (max_seats_per_user BETWEEN 1 AND 1000000);
UPDATE shows SET max_hold_seconds = greatest(hold_seconds, 900);
ALTER TABLE shows
    ALTER COLUMN max_hold_seconds SET DEFAULT 900,
    ALTER COLUMN max_hold_seconds SET NOT NULL,
    ADD CHECK (max_hold_seconds BETWEEN hold_seconds AND 86400);

COMMENT ON COLUMN shows.max_hold_seconds      IS 'How long a hold can last in all, extensions included, in seconds.';
COMMENT ON COLUMN shows.max_seats_per_booking IS 'The most seats of one booking.';
COMMENT ON COLUMN shows.max_seats_per_user    IS 'The most seats that one user name can have at the same time, held or confirmed; NULL: no limit. Never changes.';

ALTER TABLE bookings
    ADD COLUMN extendable_until timestamptz,
    ADD COLUMN counts_per_user  boolean NOT NULL DEFAULT false;
UPDATE bookings SET extendable_until = expires_at;
ALTER TABLE bookings
    ALTER COLUMN extendable_until SET NOT NULL,
    ADD CHECK (expires_at <= extendable_until);

COMMENT ON COLUMN bookings.extendable_until IS 'The latest deadline that the hold can be given. Never changes.';
COMMENT ON COLUMN bookings.counts_per_user  IS 'Whether its show limits the seats of a user. Never changes. It keeps the index for that limit empty for all other shows.';

-- What a user has of a show with such a limit; read while the show is locked.
CREATE INDEX bookings_live_of_user ON bookings (show_id, user_name)
    WHERE counts_per_user AND status IN ('PENDING', 'CONFIRMED');
-- Lists. A new booking, which is PENDING, writes into the first and the last of them.
CREATE INDEX bookings_of_user ON bookings (user_name, id);
CREATE INDEX bookings_resolved ON bookings (status, id) WHERE status <> 'PENDING';
CREATE INDEX bookings_by_deadline ON bookings (expires_at, id) WHERE status = 'PENDING';

-- A number that sorts bookings by their id from the last one that was written before a time: a lower bound for the ids of
-- those that were created later, found without an index on created_at, which each new booking would have to write.
--
-- Ids ascend in the order in which they were taken, and an id is taken after the clock was read for created_at, within the
-- 15 s that a transaction has for everything. So a booking whose id is lower than that of another one which was created
-- 15 s before that time was created before it, too.
CREATE FUNCTION last_booking_before(instant timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    WITH RECURSIVE bisected (low, high, step) AS (
        SELECT 0::bigint, (SELECT coalesce(max(id), 0) FROM bookings), 0
        UNION ALL
        SELECT CASE WHEN is_before THEN middle ELSE low END, CASE WHEN is_before THEN high ELSE middle - 1 END, step + 1
        FROM bisected,
             LATERAL (SELECT low + (high - low + 1) / 2 AS middle) AS half,
             -- Ids have gaps: the booking at or below the middle stands for it.
             LATERAL (SELECT coalesce((SELECT created_at < instant - interval '15 seconds' FROM bookings
                                       WHERE id <= middle ORDER BY id DESC LIMIT 1), true) AS is_before) AS probe
        WHERE low < high)
    SELECT low FROM bisected ORDER BY step DESC LIMIT 1
$$;

-- Requests with an Idempotency-Key, written in the transaction of what they made.
CREATE TABLE idempotency_keys (
    owner       bigint      NOT NULL,
    key         text        NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    fingerprint bytea       NOT NULL,
    show_id     bigint      NOT NULL,
    booking_id  bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- The oldest first, to prune them.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

COMMENT ON TABLE  idempotency_keys             IS 'What a request with an Idempotency-Key made, so that its repetition makes nothing more. A refused request leaves no row.';
COMMENT ON COLUMN idempotency_keys.owner       IS 'The API key of the caller; 0 without one.';
COMMENT ON COLUMN idempotency_keys.key         IS 'As the client sent it.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of what was asked for: a repetition asks for the same.';
COMMENT ON COLUMN idempotency_keys.show_id     IS 'The show that it made, or the show of the booking that it made.';
COMMENT ON COLUMN idempotency_keys.booking_id  IS 'The booking that it made; NULL when it made a show.';
COMMENT ON COLUMN idempotency_keys.created_at  IS 'When the row was written.';

CREATE TABLE api_keys (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    secret_hash bytea       NOT NULL CHECK (length(secret_hash) = 32),
    scopes      text[]      NOT NULL CHECK (scopes <@ ARRAY['shows:read', 'shows:write', 'bookings:read', 'bookings:write', 'admin']),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
-- A revoked key keeps its name; another one can have it again.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;

COMMENT ON TABLE  api_keys             IS 'Who may use the API, and for what.';
COMMENT ON COLUMN api_keys.id          IS 'Identity; the first part of the key.';
COMMENT ON COLUMN api_keys.name        IS 'For people; 1 to 100 characters.';
COMMENT ON COLUMN api_keys.secret_hash IS 'SHA-256 of the secret, which has 256 random bits and is stored nowhere.';
COMMENT ON COLUMN api_keys.scopes      IS 'What it may do.';
COMMENT ON COLUMN api_keys.created_at  IS 'When the row was written.';
COMMENT ON COLUMN api_keys.revoked_at  IS 'From when on it is no longer valid; NULL while it is.';
