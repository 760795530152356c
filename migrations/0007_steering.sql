-- What people who watch the queue and steer it need.

-- A queue that is named here is paused: its jobs wait, and those in hand finish.
CREATE TABLE queue_pauses (
    queue     text        PRIMARY KEY CHECK (char_length(queue) BETWEEN 1 AND 100),
    paused_at timestamptz NOT NULL DEFAULT now(),
    paused_by text        NOT NULL
);

COMMENT ON TABLE  queue_pauses           IS 'The queues whose jobs are not handed out.';
COMMENT ON COLUMN queue_pauses.queue     IS 'Its name, as in apalis.jobs.job_type.';
COMMENT ON COLUMN queue_pauses.paused_at IS 'Since when.';
COMMENT ON COLUMN queue_pauses.paused_by IS 'Who paused it: the name of an API key, or an address.';

-- As in 0003, but that a paused queue has nothing to hand out. So a pause reaches every worker at its next look, and
-- stays over restarts.
CREATE OR REPLACE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5)
RETURNS SETOF apalis.jobs LANGUAGE sql VOLATILE AS $$
    WITH taken AS (
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
              AND NOT EXISTS (SELECT FROM queue_pauses WHERE queue = v_job_type)
            ORDER BY run_at
            LIMIT v_job_count
            FOR UPDATE OF jobs SKIP LOCKED))
        RETURNING *)
    SELECT convert_to('"' || encode(job, 'hex') || '"', 'UTF8'), id, job_type, status, attempts, max_attempts, run_at,
           last_result, lock_at, lock_by, done_at, priority, idempotency_key, metadata
    FROM taken WHERE status = 'Queued'
$$;

-- What will be run again, the next one first: to find it among all that is scheduled.
CREATE INDEX jobs_failed ON apalis.jobs (job_type, run_at) WHERE status = 'Failed' AND attempts < max_attempts;

-- What was done to the queue by others than its workers. The last first, to show it and to prune it: by id.
CREATE TABLE interventions (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text        NOT NULL,
    action   text        NOT NULL,
    target   text        NOT NULL,
    affected bigint      NOT NULL
);

COMMENT ON TABLE  interventions          IS 'What people did to the queue, written in the transaction that did it; and what the janitor had to put right.';
COMMENT ON COLUMN interventions.id       IS 'Identity; ascends.';
COMMENT ON COLUMN interventions.at       IS 'When.';
COMMENT ON COLUMN interventions.actor    IS 'Who: the name of an API key, an address, or janitor.';
COMMENT ON COLUMN interventions.action   IS 'What: retry, run, cancel, pause, resume; of the janitor: sweep, rescue, bury.';
COMMENT ON COLUMN interventions.target   IS 'To what, in words: a job, a queue, a filter.';
COMMENT ON COLUMN interventions.affected IS 'How many jobs it changed, or holds; of a queue 1, and 0 where it was so already.';
