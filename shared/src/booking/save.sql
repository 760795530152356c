-- Writes changed bookings, and counts them in their batches.
--
-- Parameters, in groups of arrays of equal length:
--     bookings   $1 id  $2 status as it is  $3 status  $4 resolved_at  $5 expires_at
--                $16 number_of_seats  $17 released_seats: empty if these do not change
--     batches    $6 show_id  $7 id  $8 is_extension  $9 held  $10 held_seats  $11 confirmed  $12 failed  $13 cancelled
-- and single values: $14 the clock when the bookings were locked, $15 the only show, if there is one.
WITH changed AS (
    UPDATE bookings SET status = new.status, resolved_at = new.resolved_at,
                        expires_at = CASE new.status WHEN 'PENDING' THEN new.expires_at ELSE bookings.expires_at END,
                        is_extended = is_extended OR new.status = 'PENDING' AND new.expires_at > bookings.expires_at,
                        number_of_seats = coalesce(new.number_of_seats, bookings.number_of_seats),
                        released_seats = coalesce(new.released_seats, bookings.released_seats),
                        counts_per_user = counts_per_user AND new.status IN ('PENDING', 'CONFIRMED')
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $16::integer[], $17::integer[])
         AS new (id, former_status, status, resolved_at, expires_at, number_of_seats, released_seats)
    WHERE bookings.id = new.id AND bookings.status = former_status
      -- From its deadline on a hold can only fail, and before it can't.
      AND (former_status <> 'PENDING' OR (bookings.expires_at <= $14) = (new.status = 'FAILED'))
      AND ($15::bigint IS NULL OR show_id = $15)
    RETURNING 1),
locked AS MATERIALIZED (
    SELECT count.*
    FROM unnest($6::bigint[], $7::bigint[], $8::boolean[], $9::integer[], $10::integer[], $11::integer[], $12::integer[],
                $13::integer[])
         AS count (show_id, id, is_extension, held, held_seats, confirmed, failed, cancelled)
    JOIN batches USING (show_id, id, is_extension)
    WHERE ($15::bigint IS NULL OR batches.show_id = $15)
    ORDER BY count.show_id, count.id, count.is_extension FOR NO KEY UPDATE OF batches),
counted AS (
    UPDATE batches SET held = batches.held + locked.held, held_seats = batches.held_seats + locked.held_seats,
                       confirmed = batches.confirmed + locked.confirmed, failed = batches.failed + locked.failed,
                       cancelled = batches.cancelled + locked.cancelled,
                       has_held = batches.held + locked.held > 0, has_confirmed = batches.confirmed + locked.confirmed > 0,
                       has_failed = batches.failed + locked.failed > 0, has_cancelled = batches.cancelled + locked.cancelled > 0
    FROM locked
    WHERE batches.show_id = locked.show_id AND batches.id = locked.id AND batches.is_extension = locked.is_extension
      AND ($15::bigint IS NULL OR batches.show_id = $15)
    RETURNING 1)
SELECT (SELECT count(*) FROM changed) AS "bookings!", (SELECT count(*) FROM counted) AS "batches!"
