-- Cancels those of the bookings $2 of the show $1 that are held or confirmed, or fails them if they are overdue holds, counts them
-- in their batches, and frees their seats. $3 is the lock timeout for the show.
--
-- A transaction by itself, as that of booking/expire/fail.rs, for the same reasons.
WITH live AS MATERIALIZED (
    SELECT bookings.id, batch_id, is_extended, number_of_seats, status = 'CONFIRMED' AS was_confirmed,
           status = 'PENDING' AND bookings.expires_at <= now() AS is_overdue
    FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
    WHERE bookings.id = ANY($2) AND bookings.show_id = $1 AND status IN ('PENDING', 'CONFIRMED')
    ORDER BY bookings.id FOR NO KEY UPDATE SKIP LOCKED),
ended AS (
    UPDATE bookings SET status = CASE WHEN is_overdue THEN 'FAILED' ELSE 'CANCELLED' END,
                        -- Not before its last time: the clock may have been set back since.
                        resolved_at = greatest(now(), created_at, resolved_at), counts_per_user = false
    FROM live
    WHERE bookings.id = live.id AND show_id = $1 AND status IN ('PENDING', 'CONFIRMED')
    RETURNING live.*),
count AS MATERIALIZED (
    SELECT batch_id AS id, false AS is_extension,
           count(*) FILTER (WHERE NOT was_confirmed AND NOT is_extended) AS held,
           coalesce(sum(number_of_seats) FILTER (WHERE NOT was_confirmed AND NOT is_extended), 0) AS held_seats,
           count(*) FILTER (WHERE was_confirmed) AS confirmed,
           count(*) FILTER (WHERE is_overdue) AS failed,
           count(*) FILTER (WHERE NOT is_overdue) AS cancelled
    FROM ended GROUP BY batch_id
    UNION ALL
    SELECT id, true, 1, number_of_seats, 0, 0, 0 FROM ended WHERE is_extended AND NOT was_confirmed),
counted AS (
    UPDATE batches SET held = batches.held - count.held, held_seats = batches.held_seats - count.held_seats,
                       confirmed = batches.confirmed - count.confirmed, failed = batches.failed + count.failed,
                       cancelled = batches.cancelled + count.cancelled,
                       has_held = batches.held > count.held, has_confirmed = batches.confirmed > count.confirmed,
                       has_failed = batches.failed + count.failed > 0, has_cancelled = batches.cancelled + count.cancelled > 0
    FROM count
    WHERE batches.show_id = $1 AND batches.id = count.id AND batches.is_extension = count.is_extension
    RETURNING 1),
freed AS (
    UPDATE shows SET available_seats = available_seats + freed_seats.sum, revision = revision + 1
    FROM (SELECT sum(number_of_seats)::integer FROM ended HAVING count(*) > 0) AS freed_seats
    WHERE id = $1
      AND generation >= (SELECT generation FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1)
      AND (SELECT set_config('lock_timeout', $3, true) || set_config('synchronous_commit', 'off', true)) <> ''
      -- Counts them first, so that the show is locked last.
      AND (SELECT count(*) FROM counted) = (SELECT count(*) FROM count)
    RETURNING id)
SELECT count(*) AS "ended!", count(*) FILTER (WHERE NOT is_overdue) AS "cancelled!",
       -- An error that undoes it all if the seats were not given back, or a batch is missing: a defect.
       CASE WHEN count(*) > 0 THEN 1 / (SELECT count(*) FROM freed) END AS shows
FROM ended
