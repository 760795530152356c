-- As in 0004, in a language whose statements Citus can spread over its servers one by one; it can't those of a SQL function
-- that has parameters.
CREATE OR REPLACE FUNCTION last_booking_before(instant timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low    bigint := 0;
    high   bigint := (SELECT coalesce(max(id), 0) FROM bookings);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        -- Ids have gaps: the booking at or below the middle stands for it.
        IF coalesce((SELECT created_at < instant - interval '15 seconds' FROM bookings
                     WHERE id <= middle ORDER BY id DESC LIMIT 1), true) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
