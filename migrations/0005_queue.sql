-- Steering the queue. The queue itself is apalis's: see repeatable/queue_engine.sql.

CREATE TABLE queue_pauses (
    queue     text        CONSTRAINT queue_pauses_pkey PRIMARY KEY,
    paused_at timestamptz NOT NULL DEFAULT now(),
    paused_by text        NOT NULL,
    CONSTRAINT queue_pauses_queue_length CHECK (char_length(queue) BETWEEN 1 AND 100),
    CONSTRAINT queue_pauses_paused_at_range CHECK (paused_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
);

COMMENT ON TABLE  queue_pauses           IS 'Paused queues: their jobs wait, and running ones finish.';
COMMENT ON COLUMN queue_pauses.queue     IS 'The queue''s name, as in apalis.jobs.job_type.';
COMMENT ON COLUMN queue_pauses.paused_at IS 'When it was paused.';
COMMENT ON COLUMN queue_pauses.paused_by IS 'Who paused it: the name of an API key, or an address.';

-- Read newest first and pruned oldest first: by id.
CREATE TABLE interventions (
    id       bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT interventions_pkey PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text        NOT NULL,
    action   text        NOT NULL,
    target   text        NOT NULL,
    affected bigint      NOT NULL,
    CONSTRAINT interventions_at_range CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
);

COMMENT ON TABLE  interventions          IS 'Actions of people on the queue, each written in its own transaction, and repairs by the janitor.';
COMMENT ON COLUMN interventions.id       IS 'Identity; ascends.';
COMMENT ON COLUMN interventions.at       IS 'When.';
COMMENT ON COLUMN interventions.actor    IS 'Who: the name of an API key, an address, or janitor.';
COMMENT ON COLUMN interventions.action   IS 'What: retry, run, cancel, pause, resume; of the janitor: sweep, rescue, bury.';
COMMENT ON COLUMN interventions.target   IS 'To what, in words: a job, a queue, a filter.';
COMMENT ON COLUMN interventions.affected IS 'Number of jobs or holds that changed; of a queue 1, and 0 where it was so already.';
