-- Shows: what is for sale, and the counter of the seats that are left.
--
-- For every show, always:
--   seats = available_seats + sum(number_of_seats) of its PENDING and CONFIRMED bookings

CREATE TABLE shows (
    id                    bigint      GENERATED ALWAYS AS IDENTITY,
    name                  text        NOT NULL,
    starts_at             timestamptz NOT NULL,
    seats                 integer     NOT NULL,
    available_seats       integer     NOT NULL,
    hold_seconds          integer     NOT NULL DEFAULT 120,
    max_hold_seconds      integer     NOT NULL DEFAULT 900,
    max_seats_per_booking integer     NOT NULL DEFAULT 1000,
    max_seats_per_user    integer,
    created_at            timestamptz NOT NULL DEFAULT now(),
    revision              bigint      NOT NULL DEFAULT 0,
    generation            bigint      GENERATED ALWAYS AS (revision / 32) STORED,
    CONSTRAINT shows_pkey                  PRIMARY KEY (id, generation),
    CONSTRAINT shows_name_length           CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT shows_seats_range           CHECK (seats BETWEEN 1 AND 1000000),
    CONSTRAINT shows_available_seats_range CHECK (available_seats BETWEEN 0 AND seats),
    CONSTRAINT shows_hold_seconds_range    CHECK (hold_seconds BETWEEN 1 AND 86400),
    CONSTRAINT shows_max_hold_seconds_range CHECK (max_hold_seconds BETWEEN hold_seconds AND 86400),
    CONSTRAINT shows_max_seats_per_booking_range CHECK (max_seats_per_booking BETWEEN 1 AND 1000),
    CONSTRAINT shows_max_seats_per_user_range    CHECK (max_seats_per_user BETWEEN 1 AND 1000000),
    -- Times that an answer can have. PostgreSQL's go from 4713 BC to 294276, and to infinity.
    CONSTRAINT shows_starts_at_range  CHECK (starts_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    CONSTRAINT shows_created_at_range CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
)
-- A hot show's row is rewritten once per transaction. Free room on its page keeps most rewrites on that page and out of
-- the index (HOT updates); dead versions are then pruned on the fly.
--
-- While any transaction of the server stays open, such as a forgotten one or a slow dump, nothing can be pruned, and whoever
-- looks for the row by its id reads all its dead versions: a hot show fell to a fifteenth in 90 s. So each 32nd rewrite begins a
-- new generation, which is in the key: the newest version is the first one of `id = $1 ORDER BY generation DESC`, and at most
-- 32 versions are read to find it. That no two shows have the same id is up to the identity, and the audit.
WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE  shows                       IS 'A performance with a number of unnumbered seats.';
COMMENT ON COLUMN shows.id                    IS 'Identity.';
COMMENT ON COLUMN shows.name                  IS 'Display name; 1 to 200 characters.';
COMMENT ON COLUMN shows.starts_at             IS 'Start of the performance.';
COMMENT ON COLUMN shows.seats                 IS 'Total seats; never changes.';
COMMENT ON COLUMN shows.available_seats       IS 'Seats that no PENDING or CONFIRMED booking has. Changed only under this row''s lock. Not indexed, so that updates stay HOT.';
COMMENT ON COLUMN shows.hold_seconds          IS 'How long a new booking holds its seats unconfirmed, in seconds.';
COMMENT ON COLUMN shows.max_hold_seconds      IS 'How long a hold can last in total, extensions included, in seconds.';
COMMENT ON COLUMN shows.max_seats_per_booking IS 'Maximum seats of one booking.';
COMMENT ON COLUMN shows.max_seats_per_user    IS 'Maximum seats that one user name can have at the same time, held or confirmed; NULL: no limit. Never changes.';
COMMENT ON COLUMN shows.created_at            IS 'When the row was written.';
COMMENT ON COLUMN shows.revision              IS 'Number of times that the row was changed.';
COMMENT ON COLUMN shows.generation            IS 'Goes up each 32 revisions, by which the newest version of the row is found.';
