-- Our changes to apalis's schema: the function that hands out due jobs, and the indexes of its table.
--
-- `migrate` applies this file each time, after apalis's migrations and ours, because a later release of apalis may
-- define the same function or index again. So every statement here can be repeated.

-- Indexes. Each is written anew with each version of a job's row, unless its predicate leaves that version out.

-- Due jobs, the longest due first. apalis orders by priority before that: with its index a poll of an idle queue reads
-- every scheduled job. All our jobs have the same priority.
CREATE INDEX IF NOT EXISTS jobs_due ON apalis.jobs (job_type, run_at)
    WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts);
-- Running jobs: few, whatever the table's size. A lost worker's jobs are found here.
CREATE INDEX IF NOT EXISTS jobs_in_hand ON apalis.jobs (lock_at) WHERE status = 'Queued' OR status = 'Running';
-- Finished jobs, the oldest first, to prune them.
CREATE INDEX IF NOT EXISTS jobs_done ON apalis.jobs (done_at) WHERE status = 'Done';
CREATE INDEX IF NOT EXISTS jobs_dead ON apalis.jobs (done_at)
    WHERE status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts);
-- Jobs to be retried, the next one first: to find them among all scheduled ones.
CREATE INDEX IF NOT EXISTS jobs_failed ON apalis.jobs (job_type, run_at) WHERE status = 'Failed' AND attempts < max_attempts;
-- Keys of jobs that have one; ours have none.
CREATE UNIQUE INDEX IF NOT EXISTS jobs_idempotency_key ON apalis.jobs (job_type, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- apalis's own that these replace, and twins of primary keys.
--
-- `lock_by` stays set on finished jobs. As long as the table has never been analyzed, the planner expects one job of each
-- worker, and the statement that acknowledges jobs read through this index every job that the worker ever took.
DROP INDEX IF EXISTS apalis.idx_apalis_jobs_fetch_partial, apalis.idx_apalis_jobs_lock_by, apalis.lidx,
    apalis.idx_jobs_idempotency_key, apalis.unique_job_id;
-- The foreign key would search that index for each worker that is deleted, and locks the worker's row for each job that is
-- taken. Dropped only where it is there: to alter the table, even for nothing, waits for everybody who reads it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'fk_worker_lock_by' AND conrelid = 'apalis.jobs'::regclass) THEN
        ALTER TABLE apalis.jobs DROP CONSTRAINT fk_worker_lock_by;
    END IF;
END
$$;

-- Times within bounds, as in our own tables. Those that are not yet are brought there first: with such a row, the statement
-- that hands out jobs would fail.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'jobs_times_range' AND conrelid = 'apalis.jobs'::regclass) THEN
        UPDATE apalis.jobs SET
            run_at = greatest('0001-01-01 00:00:00+00', least('9999-12-31 23:59:59.999999+00', run_at)),
            lock_at = CASE WHEN isfinite(lock_at) THEN greatest('0001-01-01 00:00:00+00', least('9999-12-31 23:59:59.999999+00', lock_at)) END,
            done_at = CASE WHEN isfinite(done_at) THEN greatest('0001-01-01 00:00:00+00', least('9999-12-31 23:59:59.999999+00', done_at)) END
        WHERE NOT (run_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
           OR NOT (lock_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
           OR NOT (done_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');
        ALTER TABLE apalis.jobs ADD CONSTRAINT jobs_times_range CHECK (
            run_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
            AND lock_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
            AND done_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');
    END IF;
END
$$;

-- A job's row is written three times in its short life.
ALTER TABLE apalis.jobs SET (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0
);

-- Whether apalis can read all of a job's row but its payload: it wants a ULID, a time since 1970 and another one that is not
-- infinite, counts of attempts, and metadata without NULL. It ends the worker that takes an unreadable one, and then the next worker, for ever.
CREATE OR REPLACE FUNCTION apalis.is_readable(job apalis.jobs) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT job.id ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
       AND job.run_at >= 'epoch' AND coalesce(job.done_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00', true)
       AND job.attempts >= 0 AND job.max_attempts >= 0
       AND coalesce(job.priority, 0) >= 0
       AND (job.metadata IS NULL OR array_position(avals(job.metadata), NULL) IS NULL)
$$;

-- Hands out due jobs, as apalis's own function does, but that
--
-- * a paused queue has none, so that a pause reaches every worker at its next poll and stays over restarts;
-- * where more are due than are asked for, half of them are the longest due and half the newest: a backlog of one show must not
--   delay the holds of another;
-- * a job with an unreadable row becomes dead instead;
-- * the payload is a JSON string of its bytes in hexadecimal, which always decodes. The worker decides what it means.
--
-- In PL/pgSQL the row is changed by the names of its columns, whatever columns apalis adds; a SQL function would name them
-- all in the table's order.
CREATE OR REPLACE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5)
RETURNS SETOF apalis.jobs LANGUAGE plpgsql VOLATILE
-- Sessions for apalis have it off, for its other statements; this one needs the order of an index.
SET enable_indexscan = on AS $$
DECLARE
    ids text[];
    taken apalis.jobs;
BEGIN
    IF EXISTS (SELECT FROM queue_pauses WHERE queue = v_job_type) THEN
        RETURN;
    END IF;
    ids := ARRAY(
        SELECT id FROM apalis.jobs
        WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
          AND run_at < now() AND job_type = v_job_type
        ORDER BY run_at LIMIT v_job_count
        FOR UPDATE SKIP LOCKED);
    -- A backlog. Without one, the index would be read back to its beginning, through all that was taken since it was vacuumed.
    IF cardinality(ids) = v_job_count THEN
        ids := ids[:v_job_count - v_job_count / 2] || ARRAY(
            SELECT id FROM apalis.jobs
            WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
              AND run_at < now() AND job_type = v_job_type
            ORDER BY run_at DESC LIMIT v_job_count / 2
            FOR UPDATE SKIP LOCKED);
    END IF;
    FOR taken IN
        UPDATE apalis.jobs SET
            status = CASE WHEN apalis.is_readable(jobs) THEN 'Queued' ELSE 'Killed' END,
            done_at = CASE WHEN apalis.is_readable(jobs) THEN done_at ELSE now() END,
            last_result = CASE WHEN apalis.is_readable(jobs) THEN last_result
                               ELSE '{"Err": "the job''s row is unreadable: id, times, counts or metadata"}' END,
            lock_by = worker_id, lock_at = now()
        WHERE id = ANY (ids)
        RETURNING jobs.*
    LOOP
        CONTINUE WHEN taken.status <> 'Queued';
        taken.job := convert_to('"' || encode(taken.job, 'hex') || '"', 'UTF8');
        RETURN NEXT taken;
    END LOOP;
END
$$;

-- The mark by which a worker knows, when it starts, that the function is this one: a number that goes up with what the
-- worker expects of it, and its hash, since a comment outlives the text that it was written for.
DO $$
BEGIN
    EXECUTE format('COMMENT ON FUNCTION apalis.get_jobs(text, text, integer) IS %L',
                   (SELECT 'ticketing 1 ' || md5(prosrc) FROM pg_proc
                    WHERE oid = 'apalis.get_jobs(text, text, integer)'::regprocedure));
END
$$;
