-- What apalis can't read would end the worker that takes it, and then the next one that does, for ever. So what it reads
-- passes here first.

-- Whether apalis can read all of a job's row but its payload: it wants a ULID, a time since 1970, counts of attempts, and
-- metadata without NULL.
CREATE FUNCTION apalis.is_readable(job apalis.jobs) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT job.id ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
       AND job.run_at >= 'epoch' AND job.attempts >= 0 AND job.max_attempts >= 0
       AND coalesce(job.priority, 0) >= 0
       AND (job.metadata IS NULL OR array_position(avals(job.metadata), NULL) IS NULL)
$$;

-- As before, but that a job with an unreadable row is dead, and that the payload is handed out as a JSON string of its
-- bytes in hexadecimal, which always decodes. The worker tells what a payload means, or that it means nothing.
CREATE OR REPLACE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5)
RETURNS SETOF apalis.jobs LANGUAGE sql VOLATILE AS $$
    WITH taken AS (
        -- As an array, because the planner takes a limit that it does not know for a tenth of the table.
        UPDATE apalis.jobs SET
            status = CASE WHEN apalis.is_readable(jobs) THEN 'Queued' ELSE 'Killed' END,
            done_at = CASE WHEN apalis.is_readable(jobs) THEN done_at ELSE now() END,
            last_result = CASE WHEN apalis.is_readable(jobs) THEN last_result
                               ELSE '{"Err": "the job''s row is unreadable: id, times, counts or metadata"}' END,
            lock_by = worker_id, lock_at = now()
        WHERE id = ANY (ARRAY(
            SELECT id FROM apalis.jobs
            WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
              AND run_at < now() AND job_type = v_job_type
            ORDER BY run_at
            LIMIT v_job_count
            FOR UPDATE SKIP LOCKED))
        RETURNING *)
    SELECT convert_to('"' || encode(job, 'hex') || '"', 'UTF8'), id, job_type, status, attempts, max_attempts, run_at,
           last_result, lock_at, lock_by, done_at, priority, idempotency_key, metadata
    FROM taken WHERE status = 'Queued'
$$;
