-- Domains: types with the bounds of a value, in place of CHECKs of a table.
--
-- PostgreSQL reads and compiles all CHECKs of a table for each statement that writes it, also those of columns that the
-- statement does not change. A hot show's row is written by each transaction, and its nine CHECKs took a tenth of the
-- processor time of a small one. The bounds of a domain are checked where a value is assigned. CHECKs remain where columns are
-- compared.

CREATE DOMAIN instant AS timestamptz
    CONSTRAINT instant_range CHECK (VALUE BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');
CREATE DOMAIN display_name AS text
    CONSTRAINT display_name_length CHECK (char_length(VALUE) BETWEEN 1 AND 200);
CREATE DOMAIN seats_of_show AS integer
    CONSTRAINT seats_of_show_range CHECK (VALUE BETWEEN 1 AND 1000000);
CREATE DOMAIN seats_of_booking AS integer
    CONSTRAINT seats_of_booking_range CHECK (VALUE BETWEEN 1 AND 1000);
CREATE DOMAIN hold_seconds AS integer
    CONSTRAINT hold_seconds_range CHECK (VALUE BETWEEN 1 AND 86400);
CREATE DOMAIN booking_status AS text
    CONSTRAINT booking_status_known CHECK (VALUE IN ('PENDING', 'CONFIRMED', 'FAILED', 'CANCELLED'));

COMMENT ON DOMAIN instant          IS 'A time that an answer can have. PostgreSQL''s go from 4713 BC to 294276, and to infinity.';
COMMENT ON DOMAIN display_name     IS 'A name for people: 1 to 200 characters.';
COMMENT ON DOMAIN seats_of_show    IS 'A number of seats that a show can have.';
COMMENT ON DOMAIN seats_of_booking IS 'A number of seats that a booking can have.';
COMMENT ON DOMAIN hold_seconds     IS 'A duration of a hold, in seconds: up to a day.';
COMMENT ON DOMAIN booking_status   IS 'PENDING (a hold), CONFIRMED, FAILED (the hold expired) or CANCELLED.';

ALTER TABLE shows
    ALTER COLUMN name                  TYPE display_name,
    ALTER COLUMN starts_at             TYPE instant,
    ALTER COLUMN seats                 TYPE seats_of_show,
    ALTER COLUMN hold_seconds          TYPE hold_seconds,
    ALTER COLUMN max_hold_seconds      TYPE hold_seconds,
    ALTER COLUMN max_seats_per_booking TYPE seats_of_booking,
    ALTER COLUMN max_seats_per_user    TYPE seats_of_show,
    ALTER COLUMN created_at            TYPE instant,
    DROP CONSTRAINT shows_name_length,
    DROP CONSTRAINT shows_starts_at_range,
    DROP CONSTRAINT shows_seats_range,
    DROP CONSTRAINT shows_hold_seconds_range,
    DROP CONSTRAINT shows_max_hold_seconds_range,
    ADD  CONSTRAINT shows_max_hold_seconds_range CHECK (max_hold_seconds >= hold_seconds),
    DROP CONSTRAINT shows_max_seats_per_booking_range,
    DROP CONSTRAINT shows_max_seats_per_user_range,
    DROP CONSTRAINT shows_created_at_range;

ALTER TABLE idempotency_keys
    ALTER COLUMN created_at TYPE instant,
    DROP CONSTRAINT idempotency_keys_created_at_range;

ALTER TABLE api_keys
    ALTER COLUMN created_at TYPE instant,
    ALTER COLUMN revoked_at TYPE instant,
    DROP CONSTRAINT api_keys_created_at_range,
    DROP CONSTRAINT api_keys_revoked_at_range;

ALTER TABLE queue_pauses
    ALTER COLUMN paused_at TYPE instant,
    DROP CONSTRAINT queue_pauses_paused_at_range;

ALTER TABLE interventions
    ALTER COLUMN at TYPE instant,
    DROP CONSTRAINT interventions_at_range;
