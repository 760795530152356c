-- Bookings: seats of a show that a user holds, bought, gave up or let lapse.
--
-- Every key contains the show, so that the same schema can be distributed by show.

-- show_id has no foreign key. Its check would lock the show's row once more for each booking, although the reserving
-- transaction holds that lock already, and cost a fifth of a hot show's throughput. The lock is the guard: only a show
-- that exists can be locked, and shows are never deleted.
CREATE TABLE bookings (
    id               bigint      GENERATED ALWAYS AS IDENTITY,
    show_id          bigint      NOT NULL,
    user_name        text        NOT NULL,
    number_of_seats  integer     NOT NULL,
    status           text        NOT NULL,
    expires_at       timestamptz NOT NULL,
    created_at       timestamptz NOT NULL,
    resolved_at      timestamptz,
    extendable_until timestamptz NOT NULL,
    counts_per_user  boolean     NOT NULL DEFAULT false,
    clock_high       timestamptz,
    CONSTRAINT bookings_pkey                  PRIMARY KEY (show_id, id),
    CONSTRAINT bookings_user_name_length      CHECK (char_length(user_name) BETWEEN 1 AND 200),
    CONSTRAINT bookings_number_of_seats_range CHECK (number_of_seats BETWEEN 1 AND 1000),
    CONSTRAINT bookings_status_known          CHECK (status IN ('PENDING', 'CONFIRMED', 'FAILED', 'CANCELLED')),
    CONSTRAINT bookings_pending_is_unresolved CHECK ((status = 'PENDING') = (resolved_at IS NULL)),
    CONSTRAINT bookings_expires_after_created CHECK (expires_at > created_at),
    CONSTRAINT bookings_expires_in_bounds     CHECK (expires_at <= extendable_until),
    CONSTRAINT bookings_resolved_after_created CHECK (resolved_at >= created_at),
    -- As of a show's; what lies between the first and the last time of a booking need not be checked.
    CONSTRAINT bookings_times_range           CHECK (created_at >= '0001-01-01 00:00:00+00' AND extendable_until <= '9999-12-31 23:59:59.999999+00'
                                                     AND resolved_at <= '9999-12-31 23:59:59.999999+00'
                                                     AND clock_high BETWEEN created_at AND '9999-12-31 23:59:59.999999+00')
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

-- Holds, by deadline: of a show, to expire them; of all shows, to list them. They say `resolved_at IS NULL`, which a
-- CHECK makes the same as `status = 'PENDING'`. Statements that find holds say the one, statements that change bookings
-- by id say the other: these can't be planned by way of all holds, as the planner did while it had no statistics, which
-- is in the first minute of a sale.
--
-- Reads of a show add up the seats of its overdue holds: number_of_seats is there for them.
CREATE INDEX bookings_holds_of_show ON bookings (show_id, expires_at) INCLUDE (number_of_seats) WHERE resolved_at IS NULL;
-- Statements on the holds of all shows say `id > 0` besides, for the same reason: those on the holds of one show can't be
-- planned by way of all.
CREATE INDEX bookings_holds_by_deadline ON bookings (expires_at, id) WHERE resolved_at IS NULL AND id > 0;

-- Seats that a user has of a show which limits them; read while the show is locked.
CREATE INDEX bookings_live_of_user ON bookings (show_id, user_name)
    WHERE counts_per_user AND status IN ('PENDING', 'CONFIRMED');

-- Lists by id. A new booking, which is PENDING, writes into the first of them.
CREATE INDEX bookings_of_user ON bookings (user_name, id);
CREATE INDEX bookings_resolved ON bookings (status, id) WHERE status <> 'PENDING';

COMMENT ON TABLE  bookings                  IS 'A number of seats of one show for one user. Rows are kept when a booking fails or is cancelled.';
COMMENT ON COLUMN bookings.id               IS 'Identity. Ascends; a refused or rolled back booking can leave a gap.';
COMMENT ON COLUMN bookings.show_id          IS 'The show. Never changes.';
COMMENT ON COLUMN bookings.user_name        IS 'Who booked; 1 to 200 characters.';
COMMENT ON COLUMN bookings.number_of_seats  IS 'Number of seats. Never changes.';
COMMENT ON COLUMN bookings.status           IS 'PENDING (a hold), CONFIRMED, FAILED (the hold expired) or CANCELLED. PENDING past expires_at counts as FAILED for every reader.';
COMMENT ON COLUMN bookings.expires_at       IS 'The hold''s deadline on this database''s clock: from this instant on it can no longer be confirmed.';
COMMENT ON COLUMN bookings.created_at       IS 'When the seats were taken.';
COMMENT ON COLUMN bookings.resolved_at      IS 'When the status last changed; NULL while PENDING.';
COMMENT ON COLUMN bookings.extendable_until IS 'The latest deadline that the hold can be given. Never changes.';
COMMENT ON COLUMN bookings.clock_high       IS 'The latest time of the bookings before it, where the clock was set back since; NULL: created_at is later.';
COMMENT ON COLUMN bookings.counts_per_user  IS 'Whether its show limits the seats of a user. Never changes. It keeps the index for that limit empty for all other shows.';

-- A lower bound for the ids of the bookings that were created after an instant, found without an index on created_at,
-- which each new booking would have to write.
--
-- Ids ascend in the order in which they were taken, and an id is taken after the clock was read for created_at, within the
-- 15 s that a transaction has for everything. So a booking whose id is lower than that of another one which was created
-- 15 s before that instant was created before it, too. A clock that is set back does not change that: what is compared is the
-- latest time so far. (Until it has caught up, new bookings look as late as the latest one, and the bound is lower.)
--
-- In PL/pgSQL, because Citus can distribute its statements one by one; it can't do so with a SQL function that has
-- parameters.
CREATE FUNCTION last_booking_before(instant timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low    bigint := 0;
    high   bigint := (SELECT coalesce(max(id), 0) FROM bookings);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        -- Ids have gaps: the booking at or below the middle stands for it.
        IF coalesce((SELECT coalesce(clock_high, created_at) < instant - interval '15 seconds' FROM bookings
                     WHERE id <= middle ORDER BY id DESC LIMIT 1), true) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
