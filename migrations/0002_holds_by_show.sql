-- The holds of each show in the order of their deadlines. Expiring takes all overdue holds of a show at once, and
-- finds them here however many other shows have a backlog. It replaces the index over all shows: a new booking writes
-- into as many indexes as before.
CREATE INDEX bookings_holds ON bookings (show_id, expires_at) WHERE status = 'PENDING';
DROP INDEX bookings_pending_expires_at;
