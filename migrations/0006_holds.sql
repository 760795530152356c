-- The holds, by `resolved_at IS NULL`, which a CHECK makes the same as `status = 'PENDING'`. Statements that find holds say the
-- one, statements that change bookings by their ids say the other: these can't be planned by way of all holds, as the
-- planner did as long as it had not seen how many there are, which is in the first minute of a sale.
CREATE INDEX bookings_holds_of_show ON bookings (show_id, expires_at) WHERE resolved_at IS NULL;
CREATE INDEX bookings_holds_by_deadline ON bookings (expires_at, id) WHERE resolved_at IS NULL;
DROP INDEX bookings_holds, bookings_by_deadline;
