-- Locks the row of the show $1, and reads what reserving needs of it, and then the clock.
--
-- It finds the newest version of the row first: see migrations/0001_shows.sql.
WITH locked AS MATERIALIZED (
    SELECT id, generation, available_seats, hold_seconds, max_hold_seconds, max_seats_per_booking, max_seats_per_user,
           sale_status, sales_start, sales_end
    FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1 FOR NO KEY UPDATE)
SELECT id AS "show_id: ShowId", generation AS "generation!", available_seats, hold_seconds, max_hold_seconds,
       max_seats_per_booking, max_seats_per_user, sale_status AS "status!: ShowStatus", sales_start, sales_end, clock_timestamp() AS "read_at!"
FROM locked
