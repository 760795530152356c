-- What our use of the queue asks of apalis's table: most of its jobs are due minutes from now.

-- What is due next, the longest due first. apalis orders by priority before that: with its index, a look at an idle queue
-- reads every scheduled job; with ours, a look at a queue with a backlog would sort all of it; and the planner can't
-- know which of both it has before it. All our jobs have the same priority. So apalis's function is replaced by one
-- that reads just what it takes. It must answer with the same columns, and take the same locks.
CREATE INDEX jobs_due ON apalis.jobs (job_type, run_at)
    WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts);
DROP INDEX IF EXISTS apalis.idx_apalis_jobs_fetch_partial;

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

-- A job with an unreadable row is dead, and the payload is handed out as a JSON string of its bytes in hexadecimal, which
-- always decodes. The worker tells what a payload means, or that it means nothing.
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

-- What workers have in hand, to find what was left behind.
CREATE INDEX jobs_in_hand ON apalis.jobs (lock_at) WHERE status = 'Queued' OR status = 'Running';
-- What is over, the oldest first, to prune it.
CREATE INDEX jobs_done ON apalis.jobs (done_at) WHERE status = 'Done';
CREATE INDEX jobs_dead ON apalis.jobs (done_at)
    WHERE status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts);

-- Each of them has a twin; each would be written anew at every change of a job.
DROP INDEX IF EXISTS apalis.unique_job_id, apalis.lidx;

-- A job's row is written three times in its short life.
ALTER TABLE apalis.jobs SET (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0
);
