-- What `reserve` asks of the database for a batch of 100 bookings of one show, and nothing else: the limit that the
-- database alone sets. For pgbench, in a database of its own whose show 1 has seats enough.
BEGIN;
WITH locked AS MATERIALIZED (
    SELECT id, generation, available_seats, hold_seconds, max_hold_seconds, max_seats_per_booking, max_seats_per_user
    FROM shows WHERE id = 1 ORDER BY generation DESC LIMIT 1 FOR NO KEY UPDATE)
SELECT id AS show_id, generation, available_seats, hold_seconds, max_hold_seconds, max_seats_per_booking,
       max_seats_per_user, clock_timestamp() FROM locked \gset
WITH counted AS (
    UPDATE shows SET available_seats = available_seats - 100, revision = revision + 1
    WHERE id = 1 AND generation = :generation AND available_seats >= 100 RETURNING id),
booked AS (
    INSERT INTO bookings (show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at,
                          clock_high)
    SELECT 1, 'user ' || position, 1, 'PENDING', now() + interval '2 minutes',
           now() + interval '15 minutes', now(),
           (SELECT high FROM (SELECT coalesce(clock_high, created_at) AS high FROM bookings ORDER BY id DESC LIMIT 1) AS newest
            WHERE high > now() + interval '1 second')
    FROM generate_series(1, 100) AS position ORDER BY position
    RETURNING id),
enqueued AS (
    INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at)
    SELECT gen_random_uuid()::text, 'expire-bookings',
           convert_to(json_strip_nulls(json_build_object('showId', 1, 'bookingIds', json_agg(id ORDER BY id)))::text, 'UTF8'),
           12, now() + interval '2 minutes'
    FROM booked)
SELECT id, (SELECT count(*) FROM counted) FROM booked ORDER BY id;
COMMIT;
