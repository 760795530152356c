-- Batches: the bookings that a transaction made for a show, counted by status.
--
-- What a list or a worker looks for is found by batch. So no index of `bookings` has the status, the deadline or the time
-- of a change, and confirming or failing a booking writes no index at all (HOT updates): it costs a third.
--
-- The ids of a batch are consecutive: if another transaction took ids in between, there are two batches. So a list in the
-- order of batches, and of the bookings within each, is in the order of ids.

CREATE TABLE batches (
    show_id       bigint      NOT NULL,
    id            bigint      NOT NULL,
    is_extension  boolean     NOT NULL DEFAULT false,
    first_id      bigint      NOT NULL,
    expires_at    instant     NOT NULL,
    held          integer     NOT NULL,
    held_seats    integer     NOT NULL,
    confirmed     integer     NOT NULL DEFAULT 0,
    failed        integer     NOT NULL DEFAULT 0,
    cancelled     integer     NOT NULL DEFAULT 0,
    -- The counts are in no index, so that most changes of them write none. Not generated columns: PostgreSQL would read and
    -- compile their expressions for each statement.
    has_held      boolean     NOT NULL,
    has_confirmed boolean     NOT NULL DEFAULT false,
    has_failed    boolean     NOT NULL DEFAULT false,
    has_cancelled boolean     NOT NULL DEFAULT false,
    CONSTRAINT batches_pkey         PRIMARY KEY (show_id, id, is_extension),
    CONSTRAINT batches_counts_range CHECK (held_seats >= held AND least(held, confirmed, failed, cancelled) >= 0)
)
-- A batch is rewritten by each transaction that changes some of its bookings.
WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE  batches               IS 'Bookings that one transaction made for one show, and how many of them are in which status.';
COMMENT ON COLUMN batches.show_id       IS 'The show.';
COMMENT ON COLUMN batches.id            IS 'Id of the last of its bookings; of an extension, of its only booking.';
COMMENT ON COLUMN batches.is_extension  IS 'Whether this is a hold that was extended: it has a deadline of its own, and so is held here. In every other status it is counted in the batch that it was made in.';
COMMENT ON COLUMN batches.first_id      IS 'Id of the first of its bookings. All bookings between the first and the last are of this batch.';
COMMENT ON COLUMN batches.expires_at    IS 'Deadline of its holds.';
COMMENT ON COLUMN batches.held          IS 'Number of its bookings that are PENDING, without extended ones.';
COMMENT ON COLUMN batches.held_seats    IS 'Seats of those.';
COMMENT ON COLUMN batches.confirmed     IS 'Number of its bookings that are CONFIRMED.';
COMMENT ON COLUMN batches.failed        IS 'Number of its bookings that are FAILED.';
COMMENT ON COLUMN batches.cancelled     IS 'Number of its bookings that are CANCELLED.';
COMMENT ON COLUMN batches.has_held      IS 'Whether held is not 0.';
COMMENT ON COLUMN batches.has_confirmed IS 'Whether confirmed is not 0.';
COMMENT ON COLUMN batches.has_failed    IS 'Whether failed is not 0.';
COMMENT ON COLUMN batches.has_cancelled IS 'Whether cancelled is not 0.';

-- A new table, so that its rows are in order and its columns where updates cost least.
ALTER TABLE bookings RENAME TO former_bookings;
ALTER SEQUENCE bookings_id_seq RENAME TO former_bookings_id_seq;
ALTER TABLE former_bookings DROP CONSTRAINT bookings_pkey;
DROP INDEX bookings_holds_of_show, bookings_holds_by_deadline, bookings_live_of_user, bookings_of_user, bookings_resolved;

CREATE TABLE bookings (
    id               bigint      GENERATED ALWAYS AS IDENTITY,
    show_id          bigint      NOT NULL,
    batch_id         bigint      NOT NULL,
    created_at       instant     NOT NULL,
    expires_at       instant     NOT NULL,
    extendable_until instant     NOT NULL,
    clock_high       instant,
    number_of_seats  seats_of_booking NOT NULL,
    is_extended      boolean     NOT NULL DEFAULT false,
    counts_per_user  boolean     NOT NULL DEFAULT false,
    user_name        display_name NOT NULL,
    -- The columns that change are side by side and last: the log gets what lies between the first and the last change.
    status           booking_status NOT NULL,
    resolved_at      instant,
    -- The id comes first: all statements that change bookings name them by id. The show is in it for distributed tables,
    -- whose unique keys must contain it; that ids are unique is up to the identity, and the audit.
    CONSTRAINT bookings_pkey                  PRIMARY KEY (id, show_id),
    CONSTRAINT bookings_pending_is_unresolved CHECK ((status = 'PENDING') = (resolved_at IS NULL)),
    CONSTRAINT bookings_expires_after_created CHECK (expires_at > created_at),
    CONSTRAINT bookings_expires_in_bounds     CHECK (expires_at <= extendable_until),
    CONSTRAINT bookings_resolved_after_created CHECK (resolved_at >= created_at),
    CONSTRAINT bookings_clock_high_after_created CHECK (clock_high >= created_at)
)
-- Half of a page stays free. A booking's row is rewritten once or twice, soon after it was inserted, and the job that expires
-- holds rewrites all rows of a page in one transaction: each finds room on the row's page.
WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

-- Bookings that exist become batches of those with the same show and deadline and consecutive ids.
INSERT INTO bookings (id, show_id, batch_id, created_at, expires_at, extendable_until, clock_high, number_of_seats,
                      counts_per_user, user_name, status, resolved_at) OVERRIDING SYSTEM VALUE
SELECT id, show_id, max(id) OVER (PARTITION BY show_id, expires_at, id - position), created_at, expires_at, extendable_until,
       clock_high, number_of_seats, counts_per_user AND status IN ('PENDING', 'CONFIRMED'), user_name, status, resolved_at
FROM (SELECT *, row_number() OVER (PARTITION BY show_id, expires_at ORDER BY id) AS position FROM former_bookings) AS former
ORDER BY id;

INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, confirmed, failed, cancelled,
                     has_held, has_confirmed, has_failed, has_cancelled)
SELECT show_id, batch_id, min(id), min(expires_at),
       count(*) FILTER (WHERE status = 'PENDING'),
       coalesce(sum(number_of_seats) FILTER (WHERE status = 'PENDING'), 0),
       count(*) FILTER (WHERE status = 'CONFIRMED'),
       count(*) FILTER (WHERE status = 'FAILED'),
       count(*) FILTER (WHERE status = 'CANCELLED'),
       bool_or(status = 'PENDING'), bool_or(status = 'CONFIRMED'), bool_or(status = 'FAILED'), bool_or(status = 'CANCELLED')
FROM bookings GROUP BY show_id, batch_id;

SELECT setval('bookings_id_seq', last_value, is_called) FROM former_bookings_id_seq;
DROP TABLE former_bookings;

-- Holds, by deadline: of a show, to expire them; of all shows, to list them. Statements on the holds of all shows say
-- `id > 0` besides: those on the holds of one show can't be planned by way of all, as the planner did while it had no
-- statistics, which is in the first minute of a sale.
CREATE INDEX batches_held_of_show ON batches (show_id, expires_at) WHERE has_held;
CREATE INDEX batches_held_by_deadline ON batches (expires_at, id) WHERE has_held AND id > 0;

-- Lists by status, of a show and of all. A batch enters them when the first of its bookings gets that status.
CREATE INDEX batches_confirmed_of_show ON batches (show_id, id) WHERE has_confirmed;
CREATE INDEX batches_failed_of_show ON batches (show_id, id) WHERE has_failed;
CREATE INDEX batches_cancelled_of_show ON batches (show_id, id) WHERE has_cancelled;
CREATE INDEX batches_confirmed ON batches (id) WHERE has_confirmed AND id > 0;
CREATE INDEX batches_failed ON batches (id) WHERE has_failed AND id > 0;
CREATE INDEX batches_cancelled ON batches (id) WHERE has_cancelled AND id > 0;

CREATE INDEX bookings_of_user ON bookings (user_name, id);

-- Seats that a user has of a show which limits them; read while the show is locked.
CREATE INDEX bookings_live_of_user ON bookings (show_id, user_name) WHERE counts_per_user;

COMMENT ON TABLE  bookings                  IS 'A number of seats of one show for one user. Rows are kept when a booking fails or is cancelled.';
COMMENT ON COLUMN bookings.id               IS 'Identity. Ascends; a refused or rolled back booking can leave a gap.';
COMMENT ON COLUMN bookings.show_id          IS 'The show. Never changes.';
COMMENT ON COLUMN bookings.batch_id         IS 'The batch that it was made in. Never changes.';
COMMENT ON COLUMN bookings.created_at       IS 'When the seats were taken.';
COMMENT ON COLUMN bookings.expires_at       IS 'The hold''s deadline on this database''s clock: from this instant on it can no longer be confirmed. That of its batch, or of its extension.';
COMMENT ON COLUMN bookings.extendable_until IS 'The latest deadline that the hold can be given. Never changes.';
COMMENT ON COLUMN bookings.clock_high       IS 'The latest time of the bookings before it, where the clock was set back since; NULL: created_at is later.';
COMMENT ON COLUMN bookings.number_of_seats  IS 'Number of seats. Never changes.';
COMMENT ON COLUMN bookings.is_extended      IS 'Whether its deadline was moved. It is then held in a batch of its own, which is an extension.';
COMMENT ON COLUMN bookings.counts_per_user  IS 'Whether its seats count for its show''s limit of the seats of a user: the show has one, and the booking is PENDING or CONFIRMED.';
COMMENT ON COLUMN bookings.user_name        IS 'Who booked; 1 to 200 characters.';
COMMENT ON COLUMN bookings.status           IS 'PENDING (a hold), CONFIRMED, FAILED (the hold expired) or CANCELLED. PENDING past expires_at counts as FAILED for every reader.';
COMMENT ON COLUMN bookings.resolved_at      IS 'When the status last changed; NULL while PENDING.';

-- Older programs do not count what they change.
UPDATE schema_compatibility SET understood_from = 9;
