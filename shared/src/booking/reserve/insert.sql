-- Writes new bookings and their batches, takes their seats from the counters of the shows, and enqueues the job that expires them.
--
-- Parameters, in groups of arrays of equal length:
--     bookings, of one show after the other   $1 show_id  $2 user_name  $3 number_of_seats  $4 expires_at  $5 extendable_until
--                                           $6 counted_as  $17 reference  $18 metadata: each empty if no booking has one
--     counters   $7 show_id  $8 seats  $9 generation
-- and single values:
--     $10 created_at  $11 the only show, if there is one
--     job        $12 id  $13 queue  $14 max_attempts  $15 run_at  $16 traceparent
WITH counted AS (
    UPDATE shows SET available_seats = available_seats - taken.seats, revision = revision + 1
    FROM unnest($7::bigint[], $8::integer[], $9::bigint[]) AS taken (show_id, seats, generation)
    WHERE id = taken.show_id AND shows.generation = taken.generation AND available_seats >= taken.seats
      -- The range of keys skips the old versions of a hot show's row, in whatever order the planner joins.
      AND (id, shows.generation) >= ($7[1], $9[1]) AND id <= $7[cardinality($7)]
    RETURNING id),
new AS MATERIALIZED (
    SELECT nextval('bookings_id_seq') AS id, requested.*
    FROM (SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::timestamptz[], $5::timestamptz[], $6::text[],
                               $17::text[], $18::text[])
               WITH ORDINALITY AS new (show_id, user_name, number_of_seats, expires_at, extendable_until, counted_as, reference,
                                       metadata, position)
          ORDER BY position) AS requested),
booked AS (
    INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                          counts_per_user, counted_as, reference, metadata, created_at, clock_high) OVERRIDING SYSTEM VALUE
    SELECT id,
           -- Where another transaction took an id in between, the difference changes.
           max(id) OVER (PARTITION BY show_id, id - position),
           show_id, user_name, number_of_seats, 'PENDING', expires_at, extendable_until,
           counted_as IS NOT NULL, counted_as, reference, metadata::json,
           $10::timestamptz,
           -- If the clock was set back: the latest time of the bookings before. Concurrent transactions may differ
           -- by less than a second.
           (SELECT high FROM (SELECT coalesce(clock_high, created_at) AS high FROM bookings
                              ORDER BY id DESC LIMIT 1) AS newest
            WHERE high > $10::timestamptz + interval '1 second')
    FROM new
    RETURNING id, batch_id, show_id, expires_at, number_of_seats),
batched AS (
    INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, has_held)
    SELECT show_id, batch_id, min(id), min(expires_at), count(*), sum(number_of_seats), true FROM booked
    GROUP BY show_id, batch_id),
enqueued AS (
    INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
    SELECT $12, $13, expire_bookings_payload($11::bigint, array_agg(id ORDER BY id)), $14, $15,
           CASE WHEN $16::text IS NOT NULL THEN hstore('traceparent', $16) END
    FROM booked)
SELECT id, batch_id, (SELECT count(*) FROM counted) AS "shows_counted!" FROM booked ORDER BY id
