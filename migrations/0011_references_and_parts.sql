-- What a box office adds to shows and bookings: references and metadata of its own, shows that are cancelled, and bookings of
-- which a part is given back or passed on.

CREATE DOMAIN reference AS text
    CONSTRAINT reference_length CHECK (char_length(VALUE) BETWEEN 1 AND 64);
-- `json`, not `jsonb`: a client gets back what it sent, with its members in their order.
CREATE DOMAIN metadata AS json
    CONSTRAINT metadata_is_object CHECK (json_typeof(VALUE) = 'object')
    CONSTRAINT metadata_length CHECK (octet_length(VALUE::text) <= 2048);

COMMENT ON DOMAIN reference IS 'A text by which another system knows a show or a booking: 1 to 64 characters.';
COMMENT ON DOMAIN metadata  IS 'What another system keeps with a show or a booking: an object of at most 2,048 bytes.';

ALTER TABLE shows
    ADD COLUMN reference             reference,
    ADD COLUMN metadata              metadata,
    ADD COLUMN cancelled_at          instant,
    ADD COLUMN seats_when_cancelled  integer,
    ADD COLUMN user_limit_since      bigint NOT NULL DEFAULT 0;

COMMENT ON COLUMN shows.max_seats_per_user   IS 'Maximum seats that one user can have at the same time, held or confirmed; NULL: no limit.';
COMMENT ON COLUMN shows.reference            IS 'By which another system knows the show; not unique.';
COMMENT ON COLUMN shows.metadata             IS 'What another system keeps with the show.';
COMMENT ON COLUMN shows.cancelled_at         IS 'When the show was cancelled.';
COMMENT ON COLUMN shows.seats_when_cancelled IS 'Seats that were in use when the show was cancelled. A job gives them back.';
COMMENT ON COLUMN shows.user_limit_since     IS 'The last booking before max_seats_per_user was last changed: later ones obey the limit as it is.';

ALTER TABLE bookings
    ADD COLUMN released_seats seats_of_booking,
    ADD COLUMN counted_as     text,
    ADD COLUMN from_id        bigint,
    ADD COLUMN reference      reference,
    ADD COLUMN metadata       metadata;

COMMENT ON COLUMN bookings.number_of_seats IS 'Number of seats. Only ever becomes less: what it lost is in released_seats.';
COMMENT ON COLUMN bookings.released_seats  IS 'Seats that it had besides, and that were given back or passed on to another booking; NULL: none.';
COMMENT ON COLUMN bookings.counted_as      IS 'Where counts_per_user: the user''s name in the form in which names are compared. NULL: as it is written.';
COMMENT ON COLUMN bookings.from_id         IS 'The booking that passed its seats on to this one.';
COMMENT ON COLUMN bookings.reference       IS 'By which another system knows the booking; not unique.';
COMMENT ON COLUMN bookings.metadata        IS 'What another system keeps with the booking.';

-- Programs of the version before write no counted_as. Their bookings count by the name as it is written, and are found by user.
DROP INDEX bookings_live_of_user;
CREATE INDEX bookings_live_of_user ON bookings (show_id, counted_as) WHERE counts_per_user;

CREATE INDEX bookings_of_reference ON bookings (reference, id) WHERE reference IS NOT NULL;
