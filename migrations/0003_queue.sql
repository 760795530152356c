-- What our use of the queue asks of apalis's table: most of its jobs are due minutes from now.

-- What is due next, the longest due first. apalis orders by priority before that: with its index, a look at an idle queue
-- reads every scheduled job; with ours, a look at a queue with a backlog would sort all of it; and the planner can't
-- know which of both it has before it. All our jobs have the same priority. So apalis's function is replaced by one
-- that reads just what it takes. It must answer with the same columns, and take the same locks.
CREATE INDEX jobs_due ON apalis.jobs (job_type, run_at)
    WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts);
DROP INDEX IF EXISTS apalis.idx_apalis_jobs_fetch_partial;

CREATE OR REPLACE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5)
RETURNS SETOF apalis.jobs LANGUAGE sql VOLATILE AS $$
    -- As an array, because the planner takes a limit that it does not know for a tenth of the table.
    UPDATE apalis.jobs SET status = 'Queued', lock_by = worker_id, lock_at = now()
    WHERE id = ANY (ARRAY(
        SELECT id FROM apalis.jobs
        WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
          AND run_at < now() AND job_type = v_job_type
        ORDER BY run_at
        LIMIT v_job_count
        FOR UPDATE SKIP LOCKED))
    RETURNING *
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
