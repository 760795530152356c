-- Payloads of jobs in SQL. In Rust they are the types of `shared::jobs`, and a test compares the two.

CREATE FUNCTION expire_bookings_payload(show_id bigint, booking_ids bigint[]) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT convert_to(json_strip_nulls(json_build_object('showId', show_id, 'bookingIds', booking_ids))::text, 'UTF8')
$$;

COMMENT ON FUNCTION expire_bookings_payload(bigint, bigint[]) IS
    'Payload of the job that expires these bookings. The show is null if they are of several shows.';

-- It reads the payload as text: a payload that is not ours must not fail the statement. Such a job is the worker's business,
-- which declares it dead.
CREATE FUNCTION bookings_of_payload(payload bytea) RETURNS SETOF bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT named::bigint FROM regexp_split_to_table(
        substring(encode(payload, 'escape')
                  FROM '^\{(?:"showId" ?: ?[0-9]{1,18}, ?)?"bookingIds" ?: ?\[([0-9]{1,18}(?:, ?[0-9]{1,18})*)\]\}$'),
        ', ?') AS named
$$;

COMMENT ON FUNCTION bookings_of_payload(bytea) IS
    'Ids of the bookings that a job expires; none if the payload is not of such a job.';
