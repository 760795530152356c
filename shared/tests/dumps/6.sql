--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: apalis; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA apalis;


--
-- Name: hstore; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;


--
-- Name: EXTENSION hstore; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION hstore IS 'data type for storing sets of (key, value) pairs';


--
-- Name: pgcrypto; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;


--
-- Name: EXTENSION pgcrypto; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION pgcrypto IS 'cryptographic functions';


--
-- Name: generate_ulid(); Type: FUNCTION; Schema: apalis; Owner: -
--

CREATE FUNCTION apalis.generate_ulid() RETURNS text
    LANGUAGE plpgsql
    AS $$
DECLARE
  -- Crockford's Base32
  encoding   BYTEA = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
  timestamp  BYTEA = E'\\000\\000\\000\\000\\000\\000';
  output     TEXT = '';

  unix_time  BIGINT;
  ulid       BYTEA;
  rand       BYTEA;
BEGIN
  -- 6 timestamp bytes
  unix_time = (EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000)::BIGINT;
  timestamp = SET_BYTE(timestamp, 0, (unix_time >> 40)::BIT(8)::INTEGER);
  timestamp = SET_BYTE(timestamp, 1, (unix_time >> 32)::BIT(8)::INTEGER);
  timestamp = SET_BYTE(timestamp, 2, (unix_time >> 24)::BIT(8)::INTEGER);
  timestamp = SET_BYTE(timestamp, 3, (unix_time >> 16)::BIT(8)::INTEGER);
  timestamp = SET_BYTE(timestamp, 4, (unix_time >> 8)::BIT(8)::INTEGER);
  timestamp = SET_BYTE(timestamp, 5, unix_time::BIT(8)::INTEGER);

  -- 10 entropy bytes, taken from a core gen_random_uuid(). Bytes 1-6 and 11-14
  -- of the UUID are fully random (we skip the version/variant bytes at offsets
  -- 7 and 9), preserving the full 80 bits of ULID entropy.
  rand = uuid_send(gen_random_uuid());
  ulid = timestamp || substr(rand, 1, 6) || substr(rand, 11, 4);

  -- Encode the timestamp
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 0) & 224) >> 5));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 0) & 31)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 1) & 248) >> 3));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 1) & 7) << 2) | ((GET_BYTE(ulid, 2) & 192) >> 6)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 2) & 62) >> 1));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 2) & 1) << 4) | ((GET_BYTE(ulid, 3) & 240) >> 4)));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 3) & 15) << 1) | ((GET_BYTE(ulid, 4) & 128) >> 7)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 4) & 124) >> 2));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 4) & 3) << 3) | ((GET_BYTE(ulid, 5) & 224) >> 5)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 5) & 31)));

  -- Encode the entropy
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 6) & 248) >> 3));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 6) & 7) << 2) | ((GET_BYTE(ulid, 7) & 192) >> 6)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 7) & 62) >> 1));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 7) & 1) << 4) | ((GET_BYTE(ulid, 8) & 240) >> 4)));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 8) & 15) << 1) | ((GET_BYTE(ulid, 9) & 128) >> 7)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 9) & 124) >> 2));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 9) & 3) << 3) | ((GET_BYTE(ulid, 10) & 224) >> 5)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 10) & 31)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 11) & 248) >> 3));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 11) & 7) << 2) | ((GET_BYTE(ulid, 12) & 192) >> 6)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 12) & 62) >> 1));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 12) & 1) << 4) | ((GET_BYTE(ulid, 13) & 240) >> 4)));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 13) & 15) << 1) | ((GET_BYTE(ulid, 14) & 128) >> 7)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 14) & 124) >> 2));
  output = output || CHR(GET_BYTE(encoding, ((GET_BYTE(ulid, 14) & 3) << 3) | ((GET_BYTE(ulid, 15) & 224) >> 5)));
  output = output || CHR(GET_BYTE(encoding, (GET_BYTE(ulid, 15) & 31)));

  RETURN output;
END
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: jobs; Type: TABLE; Schema: apalis; Owner: -
--

CREATE TABLE apalis.jobs (
    job bytea NOT NULL,
    id text NOT NULL,
    job_type text NOT NULL,
    status text DEFAULT 'Pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    max_attempts integer DEFAULT 25 NOT NULL,
    run_at timestamp with time zone DEFAULT now() NOT NULL,
    last_result jsonb,
    lock_at timestamp with time zone,
    lock_by text,
    done_at timestamp with time zone,
    priority integer DEFAULT 0,
    idempotency_key text,
    metadata public.hstore,
    CONSTRAINT jobs_times_range CHECK ((((run_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (run_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) AND ((lock_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (lock_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)) AND ((done_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (done_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))))
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='5000', autovacuum_analyze_scale_factor='0.01', autovacuum_vacuum_cost_delay='0');


--
-- Name: get_jobs(text, text, integer); Type: FUNCTION; Schema: apalis; Owner: -
--

CREATE FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer DEFAULT 5) RETURNS SETOF apalis.jobs
    LANGUAGE plpgsql
    SET enable_indexscan TO 'on'
    AS $$
DECLARE
    taken apalis.jobs;
BEGIN
    IF EXISTS (SELECT FROM queue_pauses WHERE queue = v_job_type) THEN
        RETURN;
    END IF;
    FOR taken IN
        UPDATE apalis.jobs SET
            status = CASE WHEN apalis.is_readable(jobs) THEN 'Queued' ELSE 'Killed' END,
            done_at = CASE WHEN apalis.is_readable(jobs) THEN done_at ELSE now() END,
            last_result = CASE WHEN apalis.is_readable(jobs) THEN last_result
                               ELSE '{"Err": "the job''s row is unreadable: id, times, counts or metadata"}' END,
            lock_by = worker_id, lock_at = now()
        -- By arrays, because the planner takes a limit that it does not know for a tenth of the table.
        WHERE id = ANY (ARRAY(
            SELECT id FROM apalis.jobs
            WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
              AND run_at < now() AND job_type = v_job_type
            ORDER BY run_at LIMIT v_job_count - v_job_count / 2
            FOR UPDATE SKIP LOCKED))
           OR id = ANY (ARRAY(
            SELECT id FROM apalis.jobs
            WHERE (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
              AND run_at < now() AND job_type = v_job_type
            ORDER BY run_at DESC LIMIT v_job_count / 2
            FOR UPDATE SKIP LOCKED))
        RETURNING jobs.*
    LOOP
        CONTINUE WHEN taken.status <> 'Queued';
        taken.job := convert_to('"' || encode(taken.job, 'hex') || '"', 'UTF8');
        RETURN NEXT taken;
    END LOOP;
END
$$;


--
-- Name: FUNCTION get_jobs(worker_id text, v_job_type text, v_job_count integer); Type: COMMENT; Schema: apalis; Owner: -
--

COMMENT ON FUNCTION apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer) IS 'ticketing 1 df2c7de3745c0a8f5889277fa82b1abe';


--
-- Name: is_readable(apalis.jobs); Type: FUNCTION; Schema: apalis; Owner: -
--

CREATE FUNCTION apalis.is_readable(job apalis.jobs) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $_$
    SELECT job.id ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
       AND job.run_at >= 'epoch' AND coalesce(job.done_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00', true)
       AND job.attempts >= 0 AND job.max_attempts >= 0
       AND coalesce(job.priority, 0) >= 0
       AND (job.metadata IS NULL OR array_position(avals(job.metadata), NULL) IS NULL)
$_$;


--
-- Name: notify_new_jobs(); Type: FUNCTION; Schema: apalis; Owner: -
--

CREATE FUNCTION apalis.notify_new_jobs() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.run_at <= now() THEN
        PERFORM pg_notify(
            'apalis::job::insert',
            json_build_object(
                'job_type', NEW.job_type,
                'id', NEW.id,
                'run_at', NEW.run_at
            )::text
        );
    END IF;
    RETURN NEW;
END;
$$;


--
-- Name: push_job(text, json, text, timestamp with time zone, integer, integer); Type: FUNCTION; Schema: apalis; Owner: -
--

CREATE FUNCTION apalis.push_job(job_type text, job json DEFAULT NULL::json, status text DEFAULT 'Pending'::text, run_at timestamp with time zone DEFAULT now(), max_attempts integer DEFAULT 25, priority integer DEFAULT 0) RETURNS apalis.jobs
    LANGUAGE plpgsql
    AS $$

        DECLARE
            v_job_row apalis.jobs;
            v_job_id text;

        BEGIN
        IF job_type is not NULL and length(job_type) > 512 THEN raise exception 'Job_type is too long (max length: 512).' USING errcode = 'APAJT';
        END IF;

        IF max_attempts < 1 THEN raise exception 'Job maximum attempts must be at least 1.' USING errcode = 'APAMA';
        end IF;

        SELECT
            apalis.generate_ulid() INTO v_job_id;
        INSERT INTO
            apalis.jobs
        VALUES
            (
                job,
                v_job_id,
                job_type,
                status,
                0,
                max_attempts,
                run_at,
                NULL,
                NULL,
                NULL,
                NULL,
                priority
            )
            returning * INTO v_job_row;
            RETURN v_job_row;
END;
$$;


--
-- Name: last_booking_before(timestamp with time zone); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.last_booking_before(instant timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
    low    bigint := 0;
    high   bigint := (SELECT coalesce(max(id), 0) FROM bookings);
    middle bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low + 1) / 2;
        -- Ids have gaps: the booking at or below the middle stands for it.
        IF coalesce((SELECT coalesce(clock_high, created_at) < instant - interval '15 seconds' FROM bookings
                     WHERE id <= middle ORDER BY id DESC LIMIT 1), true) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;


--
-- Name: _sqlx_migrations; Type: TABLE; Schema: apalis; Owner: -
--

CREATE TABLE apalis._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);


--
-- Name: workers; Type: TABLE; Schema: apalis; Owner: -
--

CREATE TABLE apalis.workers (
    id text NOT NULL,
    worker_type text NOT NULL,
    storage_name text NOT NULL,
    layers text DEFAULT ''::text NOT NULL,
    last_seen timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone
);


--
-- Name: _sqlx_migrations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);


--
-- Name: api_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.api_keys (
    id bigint NOT NULL,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    requests_per_second integer,
    CONSTRAINT api_keys_created_at_range CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT api_keys_name_length CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT api_keys_requests_per_second_range CHECK (((requests_per_second >= 1) AND (requests_per_second <= 1000000))),
    CONSTRAINT api_keys_revoked_at_range CHECK (((revoked_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (revoked_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT api_keys_scopes_known CHECK ((scopes <@ ARRAY['shows:read'::text, 'shows:write'::text, 'bookings:read'::text, 'bookings:write'::text, 'admin'::text])),
    CONSTRAINT api_keys_secret_hash_length CHECK ((length(secret_hash) = 32))
);


--
-- Name: TABLE api_keys; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.api_keys IS 'API keys. A revoked one stays, for the record.';


--
-- Name: COLUMN api_keys.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.id IS 'Identity; the first part of the key.';


--
-- Name: COLUMN api_keys.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.name IS 'For people; 1 to 100 characters.';


--
-- Name: COLUMN api_keys.secret_hash; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.secret_hash IS 'SHA-256 of the secret, which has 256 random bits and is stored nowhere.';


--
-- Name: COLUMN api_keys.scopes; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.scopes IS 'What it may do.';


--
-- Name: COLUMN api_keys.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.created_at IS 'When the row was written.';


--
-- Name: COLUMN api_keys.revoked_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.revoked_at IS 'From when on it is no longer valid; NULL while it is.';


--
-- Name: COLUMN api_keys.requests_per_second; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.api_keys.requests_per_second IS 'How many requests a second it may send to each api process; NULL: the server''s default.';


--
-- Name: api_keys_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.api_keys ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.api_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: bookings; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.bookings (
    id bigint NOT NULL,
    show_id bigint NOT NULL,
    user_name text NOT NULL,
    number_of_seats integer NOT NULL,
    status text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    resolved_at timestamp with time zone,
    extendable_until timestamp with time zone NOT NULL,
    counts_per_user boolean DEFAULT false NOT NULL,
    clock_high timestamp with time zone,
    CONSTRAINT bookings_expires_after_created CHECK ((expires_at > created_at)),
    CONSTRAINT bookings_expires_in_bounds CHECK ((expires_at <= extendable_until)),
    CONSTRAINT bookings_number_of_seats_range CHECK (((number_of_seats >= 1) AND (number_of_seats <= 1000))),
    CONSTRAINT bookings_pending_is_unresolved CHECK (((status = 'PENDING'::text) = (resolved_at IS NULL))),
    CONSTRAINT bookings_resolved_after_created CHECK ((resolved_at >= created_at)),
    CONSTRAINT bookings_status_known CHECK ((status = ANY (ARRAY['PENDING'::text, 'CONFIRMED'::text, 'FAILED'::text, 'CANCELLED'::text]))),
    CONSTRAINT bookings_times_range CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (extendable_until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) AND (resolved_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone) AND ((clock_high >= created_at) AND (clock_high <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)))),
    CONSTRAINT bookings_user_name_length CHECK (((char_length(user_name) >= 1) AND (char_length(user_name) <= 200)))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_analyze_scale_factor='0.02', autovacuum_vacuum_cost_delay='0');


--
-- Name: TABLE bookings; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.bookings IS 'A number of seats of one show for one user. Rows are kept when a booking fails or is cancelled.';


--
-- Name: COLUMN bookings.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.id IS 'Identity. Ascends; a refused or rolled back booking can leave a gap.';


--
-- Name: COLUMN bookings.show_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.show_id IS 'The show. Never changes.';


--
-- Name: COLUMN bookings.user_name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.user_name IS 'Who booked; 1 to 200 characters.';


--
-- Name: COLUMN bookings.number_of_seats; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.number_of_seats IS 'Number of seats. Never changes.';


--
-- Name: COLUMN bookings.status; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.status IS 'PENDING (a hold), CONFIRMED, FAILED (the hold expired) or CANCELLED. PENDING past expires_at counts as FAILED for every reader.';


--
-- Name: COLUMN bookings.expires_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.expires_at IS 'The hold''s deadline on this database''s clock: from this instant on it can no longer be confirmed.';


--
-- Name: COLUMN bookings.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.created_at IS 'When the seats were taken.';


--
-- Name: COLUMN bookings.resolved_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.resolved_at IS 'When the status last changed; NULL while PENDING.';


--
-- Name: COLUMN bookings.extendable_until; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.extendable_until IS 'The latest deadline that the hold can be given. Never changes.';


--
-- Name: COLUMN bookings.counts_per_user; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.counts_per_user IS 'Whether its show limits the seats of a user. Never changes. It keeps the index for that limit empty for all other shows.';


--
-- Name: COLUMN bookings.clock_high; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.bookings.clock_high IS 'The latest time of the bookings before it, where the clock was set back since; NULL: created_at is later.';


--
-- Name: bookings_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.bookings ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.bookings_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.idempotency_keys (
    owner bigint NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    show_id bigint NOT NULL,
    booking_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT idempotency_keys_created_at_range CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT idempotency_keys_key_length CHECK (((char_length(key) >= 1) AND (char_length(key) <= 255)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0');


--
-- Name: TABLE idempotency_keys; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.idempotency_keys IS 'The result of each request with an Idempotency-Key, so that its repetition makes nothing more. A refused request leaves no row.';


--
-- Name: COLUMN idempotency_keys.owner; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.owner IS 'The caller''s API key; 0 without one.';


--
-- Name: COLUMN idempotency_keys.key; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.key IS 'The key as the client sent it; 1 to 255 characters.';


--
-- Name: COLUMN idempotency_keys.fingerprint; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.fingerprint IS 'SHA-256 of the request: a repetition has the same.';


--
-- Name: COLUMN idempotency_keys.show_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.show_id IS 'The show that the request made, or the show of the booking that it made.';


--
-- Name: COLUMN idempotency_keys.booking_id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.booking_id IS 'The booking that the request made; NULL when it made a show.';


--
-- Name: COLUMN idempotency_keys.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.idempotency_keys.created_at IS 'When the row was written.';


--
-- Name: interventions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.interventions (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    affected bigint NOT NULL,
    CONSTRAINT interventions_at_range CHECK (((at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)))
);


--
-- Name: TABLE interventions; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.interventions IS 'Actions of people on the queue, each written in its own transaction, and repairs by the janitor.';


--
-- Name: COLUMN interventions.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.id IS 'Identity; ascends.';


--
-- Name: COLUMN interventions.at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.at IS 'When.';


--
-- Name: COLUMN interventions.actor; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.actor IS 'Who: the name of an API key, an address, or janitor.';


--
-- Name: COLUMN interventions.action; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.action IS 'What: retry, run, cancel, pause, resume; of the janitor: sweep, rescue, bury.';


--
-- Name: COLUMN interventions.target; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.target IS 'To what, in words: a job, a queue, a filter.';


--
-- Name: COLUMN interventions.affected; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.interventions.affected IS 'Number of jobs or holds that changed; of a queue 1, and 0 where it was so already.';


--
-- Name: interventions_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.interventions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.interventions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: queue_pauses; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.queue_pauses (
    queue text NOT NULL,
    paused_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_by text NOT NULL,
    CONSTRAINT queue_pauses_paused_at_range CHECK (((paused_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (paused_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT queue_pauses_queue_length CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 100)))
);


--
-- Name: TABLE queue_pauses; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.queue_pauses IS 'Paused queues: their jobs wait, and running ones finish.';


--
-- Name: COLUMN queue_pauses.queue; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.queue_pauses.queue IS 'The queue''s name, as in apalis.jobs.job_type.';


--
-- Name: COLUMN queue_pauses.paused_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.queue_pauses.paused_at IS 'When it was paused.';


--
-- Name: COLUMN queue_pauses.paused_by; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.queue_pauses.paused_by IS 'Who paused it: the name of an API key, or an address.';


--
-- Name: schema_compatibility; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_compatibility (
    is_only_row boolean DEFAULT true NOT NULL,
    understood_from bigint NOT NULL,
    CONSTRAINT schema_compatibility_one_row CHECK (is_only_row)
);


--
-- Name: TABLE schema_compatibility; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.schema_compatibility IS 'Which programs understand this schema: one row.';


--
-- Name: COLUMN schema_compatibility.is_only_row; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_compatibility.is_only_row IS 'Keeps it at one row.';


--
-- Name: COLUMN schema_compatibility.understood_from; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.schema_compatibility.understood_from IS 'The oldest migration whose programs still understand this schema.';


--
-- Name: shows; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.shows (
    id bigint NOT NULL,
    name text NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    seats integer NOT NULL,
    available_seats integer NOT NULL,
    hold_seconds integer DEFAULT 120 NOT NULL,
    max_hold_seconds integer DEFAULT 900 NOT NULL,
    max_seats_per_booking integer DEFAULT 1000 NOT NULL,
    max_seats_per_user integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    generation bigint GENERATED ALWAYS AS ((revision / 32)) STORED NOT NULL,
    CONSTRAINT shows_available_seats_range CHECK (((available_seats >= 0) AND (available_seats <= seats))),
    CONSTRAINT shows_created_at_range CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT shows_hold_seconds_range CHECK (((hold_seconds >= 1) AND (hold_seconds <= 86400))),
    CONSTRAINT shows_max_hold_seconds_range CHECK (((max_hold_seconds >= hold_seconds) AND (max_hold_seconds <= 86400))),
    CONSTRAINT shows_max_seats_per_booking_range CHECK (((max_seats_per_booking >= 1) AND (max_seats_per_booking <= 1000))),
    CONSTRAINT shows_max_seats_per_user_range CHECK (((max_seats_per_user >= 1) AND (max_seats_per_user <= 1000000))),
    CONSTRAINT shows_name_length CHECK (((char_length(name) >= 1) AND (char_length(name) <= 200))),
    CONSTRAINT shows_seats_range CHECK (((seats >= 1) AND (seats <= 1000000))),
    CONSTRAINT shows_starts_at_range CHECK (((starts_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (starts_at <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0');


--
-- Name: TABLE shows; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON TABLE public.shows IS 'A performance with a number of unnumbered seats.';


--
-- Name: COLUMN shows.id; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.id IS 'Identity.';


--
-- Name: COLUMN shows.name; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.name IS 'Display name; 1 to 200 characters.';


--
-- Name: COLUMN shows.starts_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.starts_at IS 'Start of the performance.';


--
-- Name: COLUMN shows.seats; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.seats IS 'Total seats; never changes.';


--
-- Name: COLUMN shows.available_seats; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.available_seats IS 'Seats that no PENDING or CONFIRMED booking has. Changed only under this row''s lock. Not indexed, so that updates stay HOT.';


--
-- Name: COLUMN shows.hold_seconds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.hold_seconds IS 'How long a new booking holds its seats unconfirmed, in seconds.';


--
-- Name: COLUMN shows.max_hold_seconds; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.max_hold_seconds IS 'How long a hold can last in total, extensions included, in seconds.';


--
-- Name: COLUMN shows.max_seats_per_booking; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.max_seats_per_booking IS 'Maximum seats of one booking.';


--
-- Name: COLUMN shows.max_seats_per_user; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.max_seats_per_user IS 'Maximum seats that one user name can have at the same time, held or confirmed; NULL: no limit. Never changes.';


--
-- Name: COLUMN shows.created_at; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.created_at IS 'When the row was written.';


--
-- Name: COLUMN shows.revision; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.revision IS 'Number of times that the row was changed.';


--
-- Name: COLUMN shows.generation; Type: COMMENT; Schema: public; Owner: -
--

COMMENT ON COLUMN public.shows.generation IS 'Goes up each 32 revisions, by which the newest version of the row is found.';


--
-- Name: shows_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.shows ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.shows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Data for Name: _sqlx_migrations; Type: TABLE DATA; Schema: apalis; Owner: -
--

INSERT INTO apalis._sqlx_migrations VALUES (20220530084123, 'jobs workers', '2026-11-26 16:46:59.377703+00', true, '\xd0839c6f57a379769dc27ccd581feb3d2709239c8f138e05271c9e3c760c4517a78a4d8912ab3d63b074b28d15ec74e9', 12297834);
INSERT INTO apalis._sqlx_migrations VALUES (20220709210445, 'add job fn', '2026-11-26 16:46:59.39072+00', true, '\x14f906e53a627f1b27996e74e8e69dbc29ee70519e7af4f0032a27c75ed706a34af8bafecc8f8572855f314cbc5a7ba9', 963539);
INSERT INTO apalis._sqlx_migrations VALUES (20230330210841, 'replace add job fn', '2026-11-26 16:46:59.391914+00', true, '\xd9b6e57e6de60db1647e2447cf36bf0eafbec266f1d482bd196affc97617efbc4c07bad826706c7b3a0b3960cf9f727b', 5655632);
INSERT INTO apalis._sqlx_migrations VALUES (20230408110421, 'drop old push job', '2026-11-26 16:46:59.397839+00', true, '\x3656a91fe9c652ca23df775a601409a9252357f47088d6bcf2025fda2dd67e50c99ad94d1d2ca569c91c343189c58e33', 897688);
INSERT INTO apalis._sqlx_migrations VALUES (20230408234928, 'add get jobs fn ', '2026-11-26 16:46:59.398937+00', true, '\x176c3acaf1097ff45da76d4c746af766640027b6721a056b3fc3fcc4ab8192344920b4415e8dae46f5136ee223ed5f6b', 1077411);
INSERT INTO apalis._sqlx_migrations VALUES (20240225141841, 'replace add job fn remove jid', '2026-11-26 16:46:59.400303+00', true, '\xc53560b7a312915d696ed6c7e18bda478d9bf1278c4d59e3c53b47c45d8a903f089c728a5ff2e131cd5b629cdfe7d4cb', 1552875);
INSERT INTO apalis._sqlx_migrations VALUES (20250210092135, 'include failed in get jobs', '2026-11-26 16:46:59.40221+00', true, '\x810786bd8f1007bf523bec8ed9de0a9ae789e634e5434a1a5cc9c1b766bd758b4d37912ef390dcf95e8de23910eeef55', 892442);
INSERT INTO apalis._sqlx_migrations VALUES (20250223193249, 'fix get jobs conditional', '2026-11-26 16:46:59.403359+00', true, '\xcfda3f3d62b4122b6321af0e45ba162fd3ad5d07f95e4eefe858600551167e31454ebd57d45b62e880336fcfef3ef2a7', 763098);
INSERT INTO apalis._sqlx_migrations VALUES (20250307001101, 'add job priority', '2026-11-26 16:46:59.404372+00', true, '\xb5d318f2da5e909d66db190f58b76ae52f6808733d2a88d180555430d28518fee783fb0ff1e1c37ed1dc79627abd9694', 1365149);
INSERT INTO apalis._sqlx_migrations VALUES (20250404160441, 'cleanup old push jobs fn', '2026-11-26 16:46:59.406068+00', true, '\x962242ef0971de54905cafbdefe26a3c1f32c1c52ef13b6937c2920445b1ce97cd2dcf7db9c293becc95dc55412e7a15', 647149);
INSERT INTO apalis._sqlx_migrations VALUES (20250722071207, 'improve notify', '2026-11-26 16:46:59.406953+00', true, '\xb3a1f712f8fbdfe38004134d8f55e49857b764f3277f38dd9d13299d5e0afbc895005b62fa0355b8a0d8595a38be6db7', 1137383);
INSERT INTO apalis._sqlx_migrations VALUES (20251018164839, 'update result', '2026-11-26 16:46:59.408361+00', true, '\xe4e3d1efc77746e4db164b49017c90785613b35520da84f9a5a3f8981d60420d9dec3c94af9e8632ab711ffac7c1e199', 7107895);
INSERT INTO apalis._sqlx_migrations VALUES (20251018164912, 'add metadata', '2026-11-26 16:46:59.416065+00', true, '\x803a4510201392a36e20ef81c9b05230ffa734a292c875f87ea65bc73944642b1d260a38741c4bdb88c0096338c152c0', 971771);
INSERT INTO apalis._sqlx_migrations VALUES (20251018165007, 'move to bytes', '2026-11-26 16:46:59.417498+00', true, '\xdcbb8181c56cc4b9511ddc940f81f5bb9420436d0f4edf1bc9978011324e6b8d5437c50830b8651e2168608d04977272', 6350007);
INSERT INTO apalis._sqlx_migrations VALUES (20251018165033, 'add started at', '2026-11-26 16:46:59.424307+00', true, '\x21b1264f3881a4cf4fb209ff2cc75c21946441691745d7cbc9ab1dd812a1e1c08648e47ea8b4de060784da581dab2246', 885525);
INSERT INTO apalis._sqlx_migrations VALUES (20251018165056, 'queue jobs', '2026-11-26 16:46:59.425553+00', true, '\xdd02b7e9c23a7da0f71bff73b469c51b7305d1830e7f4bd6de083c11315e8492801e242755d9981381760a5ace6d8fe7', 1101541);
INSERT INTO apalis._sqlx_migrations VALUES (20251018165121, 'notify run at', '2026-11-26 16:46:59.426963+00', true, '\xa99e6c60687ec15c1bf8132763db63a0d9d18e1ee814527254fc95ee733e65bdf2f0ae64ca86cae0d1f232654d189fda', 1197075);
INSERT INTO apalis._sqlx_migrations VALUES (20251225090252, 'include primary keys', '2026-11-26 16:46:59.428499+00', true, '\xfd9f16bd772c5682ecb3f6b0a21efed5581a85316770ab8d620b38346e9319ae239ef784e8eb46735d6be735e7b3b5be', 2428452);
INSERT INTO apalis._sqlx_migrations VALUES (20260508093314, 'idempotency key', '2026-11-26 16:46:59.431291+00', true, '\xf2686534e1abbba2fcde715c1ca724e7937a4e1f49d6a9a462ed4f1c2e8b83518f4f78868a111d6451afba770207c2d0', 1593183);
INSERT INTO apalis._sqlx_migrations VALUES (20260605000000, 'confine generate ulid to apalis', '2026-11-26 16:46:59.43322+00', true, '\xc56dbd61156387934579af19b51ba95bd0cbe203f9528f0cd619c191730788858eca89044a7aa0622d308b9a3028e2c5', 2066968);
INSERT INTO apalis._sqlx_migrations VALUES (20260824233636, 'streamline indices', '2026-11-26 16:46:59.435687+00', true, '\x09c57f5bd9cce210564e8b12da0520289290ad729ef4205cdd55bd2a60ac85f889df8c23b20a4a01d959f0c8b5775a6d', 5144110);
INSERT INTO apalis._sqlx_migrations VALUES (20260826101335, 'metadata hstore', '2026-11-26 16:46:59.441287+00', true, '\xcc38c9e6fd38157b443f6dd584e322405d49dedfd3a60867604102078a99320f97279e6c244cb87f84152ab9be7d41be', 14485848);
INSERT INTO apalis._sqlx_migrations VALUES (20260902075949, 'remove pl in get jobs', '2026-11-26 16:46:59.456446+00', true, '\x0dc0483d69bf530508d451bec9346f7d14be68c37308b130910462d130cab0827eb2825d20072105c83ae3a66ed82c6b', 1490250);


--
-- Data for Name: jobs; Type: TABLE DATA; Schema: apalis; Owner: -
--

INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a312c22626f6f6b696e67496473223a5b325d7d', '01M8CC1MYPY3T6VJPP6Z73HZEB', 'expire-bookings', 'Pending', 0, 12, '2026-11-26 16:49:00.054292+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a312c22626f6f6b696e67496473223a5b335d7d', '01M8CC1MZ37Z02MV7RXN5NKQGN', 'expire-bookings', 'Pending', 0, 12, '2026-11-26 16:49:00.067477+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a312c22626f6f6b696e67496473223a5b345d7d', '01M8CC1MZGVWQNE16DDT1RPAKC', 'expire-bookings', 'Pending', 0, 12, '2026-11-26 16:49:00.080096+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a332c22626f6f6b696e67496473223a5b355d7d', '01M8CC1MZX6BZQ6BF4YT7P609D', 'expire-bookings', 'Pending', 0, 12, '2026-11-27 16:47:00.093067+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a332c22626f6f6b696e67496473223a5b365d7d', '01M8CC1N0B05Y5FKKWA5QWEZWY', 'expire-bookings', 'Pending', 0, 12, '2026-11-27 16:47:00.107611+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a332c22626f6f6b696e67496473223a5b375d7d', '01M8CC1N0R9NVR6WPX5YDKT72M', 'expire-bookings', 'Pending', 0, 12, '2026-11-27 16:47:00.120699+00', NULL, NULL, NULL, NULL, 0, NULL, NULL);
INSERT INTO apalis.jobs VALUES ('\x7b2273686f774964223a322c22626f6f6b696e67496473223a5b315d7d', '01M8CC1MY263YCA712QJR9JANP', 'expire-bookings', 'Done', 1, 12, '2026-11-26 16:47:10.034949+00', '{"Ok": null}', '2026-11-26 16:47:10.074801+00', 'expire-bookings-12394-693511e4-0', '2026-11-26 16:47:10.097832+00', 0, NULL, NULL);


--
-- Data for Name: workers; Type: TABLE DATA; Schema: apalis; Owner: -
--

INSERT INTO apalis.workers VALUES ('expire-bookings-12394-693511e4-0', 'expire-bookings', 'PgStorage', 'tower::limit::concurrency::service::ConcurrencyLimit<apalis_core::task::data::AddExtension<apalis_core::task::data::AddExtension<apalis_core::worker::ext::parallelize::ParallelizeService<apalis_core::worker::lifecycle::LifecycleService<apalis_core::task::task_fn::TaskFn<worker::run_job, alloc::string::String, (worker::supervise::Execution, apalis_core::task::data::Data<shared::postgres::connect::Database>, apalis_core::task::data::Data<worker::supervise::Handler>)>>, tokio::task::spawn::spawn<apalis_core::worker::lifecycle::LifecycleFuture<core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future<Output = core::result::Result<(), alloc::boxed::Box<dyn core::error::Error + core::marker::Send + core::marker::Sync>>> + core::marker::Send>>>>>, worker::supervise::Handler>, shared::postgres::connect::Database>>', '2026-11-26 16:47:09.588991+00', NULL);


--
-- Data for Name: _sqlx_migrations; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public._sqlx_migrations VALUES (1, 'shows', '2026-11-26 16:46:59.469588+00', true, '\x630ebbe29b85900e1c673d429df3af7d90a64430058a5047e3614c81528bde0fcdf4561b5f590b215f89389dedb8249a', 5716433);
INSERT INTO public._sqlx_migrations VALUES (2, 'bookings', '2026-11-26 16:46:59.475976+00', true, '\x888062a584978dcb43318cd734ef109e56acf8427bd348b397e0f191d21b908583aaa201a42f8dcbdef078bf1bb01289', 11343827);
INSERT INTO public._sqlx_migrations VALUES (3, 'idempotency keys', '2026-11-26 16:46:59.487771+00', true, '\x511645630812ddeb373490e8fba3c7ffca2a48327dd2aea5028b9a00df607186b6ae818c9efeabf9eb096c70d005645d', 3921591);
INSERT INTO public._sqlx_migrations VALUES (4, 'api keys', '2026-11-26 16:46:59.492004+00', true, '\x80d4e56bb68a932027c05cb16c3012123dec6fd448e487ae1ae73415d426734d68e09b210ccb4ead4469f956c92d5506', 4881374);
INSERT INTO public._sqlx_migrations VALUES (5, 'queue', '2026-11-26 16:46:59.497203+00', true, '\x49acf76672192aafe538f4700828d25fc44319e38cd91a6b9c1f299abf28544e51951ca3f6c9aecca977a7cdc4117dc7', 5836478);
INSERT INTO public._sqlx_migrations VALUES (6, 'schema compatibility', '2026-11-26 16:46:59.503403+00', true, '\x3cb2e8be88224ac74e33d630438facca2e01585d31a7758bc84debd6683607058a5a1cc34d1f4769e11b8b20a741c8d4', 2371510);


--
-- Data for Name: api_keys; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.api_keys OVERRIDING SYSTEM VALUE VALUES (1, 'box-office', '\xc7f6b0e46a165c2d3c2607d6ee91a8ecb26b46559276bf81cf96f0b30d405e5b', '{bookings:write}', '2026-11-26 16:47:10.159001+00', NULL, NULL);


--
-- Data for Name: bookings; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (4, 1, 'Carol', 2, 'PENDING', '2026-11-26 16:49:00.080096+00', '2026-11-26 16:47:00.080096+00', NULL, '2026-11-26 17:02:00.080096+00', false, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (6, 3, 'Bob', 2, 'PENDING', '2026-11-27 16:47:00.107611+00', '2026-11-26 16:47:00.107611+00', NULL, '2026-11-27 16:47:00.107611+00', true, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (7, 3, 'Carol', 2, 'PENDING', '2026-11-27 16:47:00.120699+00', '2026-11-26 16:47:00.120699+00', NULL, '2026-11-27 16:47:00.120699+00', true, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (2, 1, 'Alice', 2, 'CONFIRMED', '2026-11-26 16:49:00.054292+00', '2026-11-26 16:47:00.054292+00', '2026-11-26 16:47:00.132548+00', '2026-11-26 17:02:00.054292+00', false, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (3, 1, 'Bob', 2, 'CANCELLED', '2026-11-26 16:49:00.067477+00', '2026-11-26 16:47:00.067477+00', '2026-11-26 16:47:00.146179+00', '2026-11-26 17:02:00.067477+00', false, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (5, 3, 'Alice', 2, 'CONFIRMED', '2026-11-27 16:47:00.093067+00', '2026-11-26 16:47:00.093067+00', '2026-11-26 16:47:00.159825+00', '2026-11-27 16:47:00.093067+00', true, NULL);
INSERT INTO public.bookings OVERRIDING SYSTEM VALUE VALUES (1, 2, 'Zoë', 3, 'FAILED', '2026-11-26 16:47:10.034949+00', '2026-11-26 16:47:00.034949+00', '2026-11-26 16:47:10.085867+00', '2026-11-26 17:02:00.034949+00', false, NULL);


--
-- Data for Name: idempotency_keys; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.idempotency_keys VALUES (0, 'show', '\x818dcc820c345972876de5feb0a4dee873ff9373283fe55a909fcb906d1cc112', 1, NULL, '2026-11-26 16:46:59.998624+00');
INSERT INTO public.idempotency_keys VALUES (0, '1-Alice', '\xedf63b7a775739bfe2529f1ef1a3fb3064fb65135cb9d9dfda41e13ecd2631e0', 1, 2, '2026-11-26 16:47:00.053932+00');
INSERT INTO public.idempotency_keys VALUES (0, '1-Bob', '\xfbcc7acda364169584bdbe3838de8b6116cac88aa62647e48a0c1bca69a4b7ad', 1, 3, '2026-11-26 16:47:00.067125+00');
INSERT INTO public.idempotency_keys VALUES (0, '1-Carol', '\x80046235f8d0bc2f6c4b50626eaa04462f08631c69b8252b4bfba0a2e5e283a1', 1, 4, '2026-11-26 16:47:00.079555+00');
INSERT INTO public.idempotency_keys VALUES (0, '3-Alice', '\x4ddd9770c48c267bc8ca2e978f81816c0f4e81e27f79bdd184a78cf03a5d8be7', 3, 5, '2026-11-26 16:47:00.09274+00');
INSERT INTO public.idempotency_keys VALUES (0, '3-Bob', '\xe6ffd7e3c6b5867ccb1f0eefb622371f96ce26af208e745a9a9031d35e9cf9af', 3, 6, '2026-11-26 16:47:00.107216+00');
INSERT INTO public.idempotency_keys VALUES (0, '3-Carol', '\x1eefb17544d24e51b8037ba7a60a22574cdabe742879879e1976cbf6c6b41425', 3, 7, '2026-11-26 16:47:00.120307+00');


--
-- Data for Name: interventions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.interventions OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-26 16:47:10.118066+00', '127.0.0.1', 'pause', 'expire-bookings', 1);


--
-- Data for Name: queue_pauses; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.queue_pauses VALUES ('expire-bookings', '2026-11-26 16:47:10.118066+00', '127.0.0.1');


--
-- Data for Name: schema_compatibility; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.schema_compatibility VALUES (true, 6);


--
-- Data for Name: shows; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.shows OVERRIDING SYSTEM VALUE VALUES (3, 'Two each', '2026-12-12 20:00:00+00', 10, 4, 86400, 86400, 1000, 2, '2026-11-26 16:47:00.02208+00', 3, DEFAULT);
INSERT INTO public.shows OVERRIDING SYSTEM VALUE VALUES (1, 'Łódź at night', '2026-12-10 20:00:00+00', 40, 36, 120, 900, 1000, NULL, '2026-11-26 16:46:59.998624+00', 4, DEFAULT);
INSERT INTO public.shows OVERRIDING SYSTEM VALUE VALUES (2, 'Ten seconds', '2026-12-11 20:00:00+00', 1000000, 1000000, 10, 900, 1000, NULL, '2026-11-26 16:47:00.012295+00', 2, DEFAULT);


--
-- Name: api_keys_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.api_keys_id_seq', 1, true);


--
-- Name: bookings_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.bookings_id_seq', 7, true);


--
-- Name: interventions_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.interventions_id_seq', 1, true);


--
-- Name: shows_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.shows_id_seq', 3, true);


--
-- Name: _sqlx_migrations _sqlx_migrations_pkey; Type: CONSTRAINT; Schema: apalis; Owner: -
--

ALTER TABLE ONLY apalis._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);


--
-- Name: jobs jobs_pkey; Type: CONSTRAINT; Schema: apalis; Owner: -
--

ALTER TABLE ONLY apalis.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);


--
-- Name: workers workers_pkey; Type: CONSTRAINT; Schema: apalis; Owner: -
--

ALTER TABLE ONLY apalis.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);


--
-- Name: _sqlx_migrations _sqlx_migrations_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);


--
-- Name: api_keys api_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);


--
-- Name: bookings bookings_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.bookings
    ADD CONSTRAINT bookings_pkey PRIMARY KEY (show_id, id);


--
-- Name: idempotency_keys idempotency_keys_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (owner, key);


--
-- Name: interventions interventions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.interventions
    ADD CONSTRAINT interventions_pkey PRIMARY KEY (id);


--
-- Name: queue_pauses queue_pauses_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.queue_pauses
    ADD CONSTRAINT queue_pauses_pkey PRIMARY KEY (queue);


--
-- Name: schema_compatibility schema_compatibility_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_compatibility
    ADD CONSTRAINT schema_compatibility_pkey PRIMARY KEY (is_only_row);


--
-- Name: shows shows_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.shows
    ADD CONSTRAINT shows_pkey PRIMARY KEY (id, generation);


--
-- Name: idx_apalis_workers_last_seen; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX idx_apalis_workers_last_seen ON apalis.workers USING btree (last_seen);


--
-- Name: idx_apalis_workers_worker_type; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX idx_apalis_workers_worker_type ON apalis.workers USING btree (worker_type);


--
-- Name: jobs_dead; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX jobs_dead ON apalis.jobs USING btree (done_at) WHERE ((status = 'Killed'::text) OR ((status = 'Failed'::text) AND (attempts >= max_attempts)));


--
-- Name: jobs_done; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX jobs_done ON apalis.jobs USING btree (done_at) WHERE (status = 'Done'::text);


--
-- Name: jobs_due; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX jobs_due ON apalis.jobs USING btree (job_type, run_at) WHERE ((status = 'Pending'::text) OR ((status = 'Failed'::text) AND (attempts < max_attempts)));


--
-- Name: jobs_failed; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX jobs_failed ON apalis.jobs USING btree (job_type, run_at) WHERE ((status = 'Failed'::text) AND (attempts < max_attempts));


--
-- Name: jobs_idempotency_key; Type: INDEX; Schema: apalis; Owner: -
--

CREATE UNIQUE INDEX jobs_idempotency_key ON apalis.jobs USING btree (job_type, idempotency_key) WHERE (idempotency_key IS NOT NULL);


--
-- Name: jobs_in_hand; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX jobs_in_hand ON apalis.jobs USING btree (lock_at) WHERE ((status = 'Queued'::text) OR (status = 'Running'::text));


--
-- Name: lsidx; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX lsidx ON apalis.workers USING btree (last_seen);


--
-- Name: unique_worker_id; Type: INDEX; Schema: apalis; Owner: -
--

CREATE UNIQUE INDEX unique_worker_id ON apalis.workers USING btree (id);


--
-- Name: wtidx; Type: INDEX; Schema: apalis; Owner: -
--

CREATE INDEX wtidx ON apalis.workers USING btree (worker_type);


--
-- Name: api_keys_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX api_keys_name ON public.api_keys USING btree (name) WHERE (revoked_at IS NULL);


--
-- Name: bookings_holds_by_deadline; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_holds_by_deadline ON public.bookings USING btree (expires_at, id) WHERE ((resolved_at IS NULL) AND (id > 0));


--
-- Name: bookings_holds_of_show; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_holds_of_show ON public.bookings USING btree (show_id, expires_at) INCLUDE (number_of_seats) WHERE (resolved_at IS NULL);


--
-- Name: bookings_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_id ON public.bookings USING btree (id);


--
-- Name: bookings_live_of_user; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_live_of_user ON public.bookings USING btree (show_id, user_name) WHERE (counts_per_user AND (status = ANY (ARRAY['PENDING'::text, 'CONFIRMED'::text])));


--
-- Name: bookings_of_user; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_of_user ON public.bookings USING btree (user_name, id);


--
-- Name: bookings_resolved; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX bookings_resolved ON public.bookings USING btree (status, id) WHERE (status <> 'PENDING'::text);


--
-- Name: idempotency_keys_created_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX idempotency_keys_created_at ON public.idempotency_keys USING btree (created_at);


--
-- Name: jobs notify_workers; Type: TRIGGER; Schema: apalis; Owner: -
--

CREATE TRIGGER notify_workers AFTER INSERT ON apalis.jobs FOR EACH ROW EXECUTE FUNCTION apalis.notify_new_jobs();


--
-- PostgreSQL database dump complete
--


