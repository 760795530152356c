-- What is sold (shows) and what was sold (bookings).
--
-- For every show, always:
--   seats = available_seats + sum(number_of_seats) of its PENDING and CONFIRMED bookings
--
-- Every key contains the show, so that the same schema can be distributed by show.

CREATE TABLE shows (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    starts_at       timestamptz NOT NULL,
    seats           integer     NOT NULL CHECK (seats BETWEEN 1 AND 1000000),
    available_seats integer     NOT NULL,
    hold_seconds    integer     NOT NULL DEFAULT 120 CHECK (hold_seconds BETWEEN 1 AND 86400),
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (available_seats BETWEEN 0 AND seats)
)
-- A hot show's row is rewritten once per transaction. Free room on its page keeps each rewrite
-- on that page and out of the index (a HOT update); dead versions are then pruned on the fly.
WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE  shows                 IS 'One performance with a number of unnumbered seats.';
COMMENT ON COLUMN shows.id              IS 'Identity.';
COMMENT ON COLUMN shows.name            IS 'What people see; 1 to 200 characters.';
COMMENT ON COLUMN shows.starts_at       IS 'When the show begins.';
COMMENT ON COLUMN shows.seats           IS 'Seats in all; never changes.';
COMMENT ON COLUMN shows.available_seats IS 'Seats that no PENDING or CONFIRMED booking has. Changed only under this row''s lock. Not indexed, so that updates stay HOT.';
COMMENT ON COLUMN shows.hold_seconds    IS 'How long a new booking of this show holds its seats unconfirmed, in seconds.';
COMMENT ON COLUMN shows.created_at      IS 'When the row was written.';

-- show_id has no foreign key. Its check would lock the show's row once more for each booking, although the
-- reserving transaction holds that lock already, and cost a fifth of a hot show's bookings a second. The lock is the
-- guard: only a show that exists can be locked, and shows are never deleted.
CREATE TABLE bookings (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    show_id         bigint      NOT NULL,
    user_name       text        NOT NULL CHECK (char_length(user_name) BETWEEN 1 AND 200),
    number_of_seats integer     NOT NULL CHECK (number_of_seats BETWEEN 1 AND 1000),
    status          text        NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'FAILED', 'CANCELLED')),
    expires_at      timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    resolved_at     timestamptz,
    PRIMARY KEY (show_id, id),
    CHECK ((status = 'PENDING') = (resolved_at IS NULL)),
    CHECK (expires_at > created_at)
)
-- A booking's row is rewritten once or twice, soon after it was inserted.
WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

-- Not unique, because a distributed table's unique keys must contain the show; the identity makes it so.
CREATE INDEX bookings_id ON bookings (id);
-- The holds in order of their deadlines: what to expire next, of one show or of all.
CREATE INDEX bookings_pending_expires_at ON bookings (expires_at) WHERE status = 'PENDING';

COMMENT ON TABLE  bookings                 IS 'A number of seats of one show for one user. Rows are kept when a booking fails or is cancelled.';
COMMENT ON COLUMN bookings.id              IS 'Identity. Ascends; a refused or rolled back booking can leave a gap.';
COMMENT ON COLUMN bookings.show_id         IS 'Whose seats. Never changes.';
COMMENT ON COLUMN bookings.user_name       IS 'Who booked; 1 to 200 characters.';
COMMENT ON COLUMN bookings.number_of_seats IS 'How many seats. Never changes.';
COMMENT ON COLUMN bookings.status          IS 'PENDING (a hold), CONFIRMED, FAILED (the hold ran out) or CANCELLED. PENDING past expires_at counts as FAILED for every reader.';
COMMENT ON COLUMN bookings.expires_at      IS 'The hold''s deadline on this database''s clock: from this instant on it can no longer be confirmed.';
COMMENT ON COLUMN bookings.created_at      IS 'When the seats were taken.';
COMMENT ON COLUMN bookings.resolved_at     IS 'When the status last changed; NULL while PENDING.';
