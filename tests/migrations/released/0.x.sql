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
-- Name: chancy_metrics_batch_codec; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_codec AS smallint
	CONSTRAINT chancy_metrics_batch_codec_check CHECK (((VALUE >= 1) AND (VALUE <= 99)));


--
-- Name: chancy_metrics_batch_day; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_day AS date
	CONSTRAINT chancy_metrics_batch_day_check CHECK (((VALUE >= '1970-01-01'::date) AND (VALUE <= '2199-12-31'::date)));


--
-- Name: chancy_metrics_batch_events; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_events AS integer
	CONSTRAINT chancy_metrics_batch_events_check CHECK ((VALUE >= 0));


--
-- Name: chancy_metrics_batch_payload; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_payload AS bytea
	CONSTRAINT chancy_metrics_batch_payload_check CHECK ((octet_length(VALUE) <= 67108864));


--
-- Name: chancy_metrics_batch_sequence; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_sequence AS bigint
	CONSTRAINT chancy_metrics_batch_sequence_check CHECK (((VALUE >= 1) AND (VALUE <= '9007199254740991'::bigint)));


--
-- Name: chancy_metrics_batch_sha256; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_sha256 AS bytea
	CONSTRAINT chancy_metrics_batch_sha256_check CHECK ((octet_length(VALUE) <= 32));


--
-- Name: chancy_metrics_batch_us; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_us AS bigint
	CONSTRAINT chancy_metrics_batch_us_check CHECK (((VALUE >= '-62135596800000000'::bigint) AND (VALUE <= '576460752303423488'::bigint)));


--
-- Name: chancy_metrics_batch_worker; Type: DOMAIN; Schema: public; Owner: -
--

CREATE DOMAIN public.chancy_metrics_batch_worker AS text
	CONSTRAINT chancy_metrics_batch_worker_check CHECK ((char_length(VALUE) <= 1024));


--
-- Name: chancy_metrics_append(integer, bytea, date, uuid, bigint, text, bigint, bigint, integer, boolean, smallint, bytea, bytea); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.chancy_metrics_append(_lock_wait_ms integer, _earlier bytea, _day date, _producer uuid, _sequence bigint, _worker text, _first_us bigint, _last_us bigint, _events integer, _closes boolean, _codec smallint, _payload bytea, _sha256 bytea) RETURNS text
    LANGUAGE plpgsql
    SET lock_timeout TO '0'
    AS $$
DECLARE
    _limit text;
    _state text;
    _error_code text;
    _error_text text;
    _is_there boolean;
    _days_there date[];
    _there bytea[];
BEGIN
    IF _day IS NULL THEN
        _day := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    END IF;

    -- The same bytes may be appended repeatedly. Before other bytes are written under an id, the id is looked up.
    -- The earlier transaction has ended, and a batch moves from spill to pending to ledger, so one snapshot finds it.
    IF _earlier IS NOT NULL THEN
        BEGIN
            _limit := set_config('lock_timeout', least(nullif(_lock_wait_ms, 0), 10)::text, true);
            BEGIN
                SELECT array_agg(day) INTO _days_there FROM "chancy_metrics_pending" WHERE producer = _producer AND sequence = _sequence;
                _is_there := EXISTS (SELECT FROM "chancy_metrics_spill" WHERE producer = _producer AND sequence = _sequence)
                    OR _days_there IS NOT NULL
                    OR EXISTS (SELECT FROM "chancy_metrics_ledger" WHERE producer = _producer AND sequence = _sequence);
            EXCEPTION WHEN OTHERS OR query_canceled THEN
                _is_there := EXISTS (SELECT FROM "chancy_metrics_spill" WHERE producer = _producer AND sequence = _sequence)
                    OR EXISTS (
                        SELECT FROM "chancy_metrics_log"
                        WHERE day IN (_day, (clock_timestamp() AT TIME ZONE 'UTC')::date)
                            AND producer = _producer AND sequence = _sequence
                    )
                    OR EXISTS (SELECT FROM "chancy_metrics_ledger" WHERE producer = _producer AND sequence = _sequence);
            END;
            IF _is_there THEN
                SELECT array_cat(_days_there, array_agg(day)) INTO _days_there FROM "chancy_metrics_ledger" WHERE producer = _producer AND sequence = _sequence;
                SELECT array_agg(t.sha256) INTO _there
                FROM (
                    SELECT sha256 FROM "chancy_metrics_spill" WHERE producer = _producer AND sequence = _sequence
                    UNION ALL
                    SELECT sha256
                    FROM "chancy_metrics_log"
                    WHERE day = ANY(_days_there || ARRAY[_day, (clock_timestamp() AT TIME ZONE 'UTC')::date])
                        AND producer = _producer AND sequence = _sequence
                ) AS t;
                IF _there IS NULL AND NOT EXISTS (SELECT FROM "chancy_metrics_ledger" WHERE producer = _producer AND sequence = _sequence) THEN
                    _is_there := false;  -- a row of pending alone is no batch: whoever may append can write one
                ELSE
                    _state := CASE WHEN _earlier = ANY(_there) OR _there IS NULL THEN 'known' ELSE 'taken' END;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS OR query_canceled THEN
            -- If the id was found, only its bytes could not be read.
            _state := CASE WHEN _is_there THEN 'known' ELSE 'refused' END;
            _error_code := SQLSTATE;
            _error_text := SQLERRM || '; what became of an earlier attempt can''t be looked up';
        END;
        IF _state IS NOT NULL THEN
            RETURN concat_ws(' ', _state, (date_part('epoch', clock_timestamp()) * 1000000)::bigint, _error_code, _error_text);
        END IF;
    END IF;

    BEGIN
        _limit := set_config('lock_timeout', _lock_wait_ms::text, true);
        INSERT INTO "chancy_metrics_log" (day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256)
        VALUES (_day, _producer, _sequence, _worker, _first_us, _last_us, _events, _closes, _codec, _payload, _sha256)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO "chancy_metrics_pending" (day, producer, sequence) VALUES (_day, _producer, _sequence);
            IF FOUND THEN
                RETURN concat_ws(' ', 'appended', (date_part('epoch', clock_timestamp()) * 1000000)::bigint);
            END IF; -- without that row it would never get a position
            RAISE EXCEPTION 'a rule or a trigger keeps batches out of the pending table';
        END IF;
        SELECT CASE sha256 WHEN _sha256 THEN 'known' ELSE 'taken' END
        INTO STRICT _state
        FROM "chancy_metrics_log"
        WHERE day = _day
            AND producer = _producer AND sequence = _sequence;
    EXCEPTION
        WHEN OTHERS OR query_canceled THEN
            -- A batch that this transaction can't see may have this id.
            _state := CASE WHEN _earlier IS NOT NULL AND SQLSTATE = '40001' THEN 'refused' END;
            _error_code := SQLSTATE;
            _error_text := SQLERRM;
    END;
    IF _state IS NOT NULL THEN
        RETURN concat_ws(' ', _state, (date_part('epoch', clock_timestamp()) * 1000000)::bigint, _error_code, _error_text);
    END IF;

    BEGIN
        _limit := set_config('lock_timeout', least(nullif(_lock_wait_ms, 0), 10)::text, true);
        INSERT INTO "chancy_metrics_spill" (day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256)
        VALUES (_day, _producer, _sequence, _worker, _first_us, _last_us, _events, _closes, _codec, _payload, _sha256)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            _state := 'spilled';
        ELSE
            SELECT CASE sha256 WHEN _sha256 THEN 'known' ELSE 'taken' END
            INTO STRICT _state
            FROM "chancy_metrics_spill"
            WHERE producer = _producer AND sequence = _sequence;
        END IF;
    EXCEPTION WHEN OTHERS OR query_canceled THEN
        _state := 'refused';
        _error_text := _error_text || '; nor did the spill table: ' || SQLERRM;
    END;
    RETURN concat_ws(' ', _state, (date_part('epoch', clock_timestamp()) * 1000000)::bigint, _error_code, _error_text);
END
$$;


--
-- Name: chancy_metrics_due(text); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.chancy_metrics_due(of_queue text, OUT jobs bigint, OUT wait_s double precision) RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
DECLARE
    _most CONSTANT bigint := 100000;
    _now CONSTANT timestamptz := statement_timestamp();
    _state text;
    _attempts integer;
    _first timestamptz;
BEGIN
    jobs := 0;
    FOREACH _state IN ARRAY ARRAY['pending', 'retrying'] LOOP
        _attempts := -1;
        LOOP
            SELECT min(j.attempts) INTO _attempts
            FROM "chancy_jobs" j
            WHERE j.queue = of_queue
                AND j.state = _state
                AND j.state IN ('pending', 'retrying')
                AND j.attempts > _attempts;
            EXIT WHEN _attempts IS NULL;
            _first := least(_first, (
                SELECT min(j.scheduled_at)
                FROM "chancy_jobs" j
                WHERE j.queue = of_queue
                    AND j.state = _state
                    AND j.state IN ('pending', 'retrying')
                    AND j.attempts = _attempts
            ));
            jobs := jobs + (
                SELECT count(*)
                FROM (
                    SELECT
                    FROM "chancy_jobs" j
                    WHERE j.queue = of_queue
                        AND j.state = _state
                        AND j.state IN ('pending', 'retrying')
                        AND j.attempts = _attempts
                        AND j.scheduled_at <= _now
                    LIMIT _most - jobs
                ) AS due
            );
        END LOOP;
    END LOOP;
    wait_s := coalesce(greatest(extract(epoch FROM _now - _first)::double precision, 0), 0);
END
$$;


--
-- Name: chancy_metrics_refuse_append(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.chancy_metrics_refuse_append() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'day % of the metrics log is closed', NEW.day
        USING ERRCODE = 'CM001',
              HINT = 'It is about to be pruned; append under a later day.';
END
$$;


--
-- Name: chancy_metrics_refuse_change(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.chancy_metrics_refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: %', TG_OP, TG_TABLE_NAME,
            coalesce(TG_ARGV[0], 'the metrics log and its ledger are append-only')
        USING ERRCODE = coalesce(TG_ARGV[1], 'object_not_in_prerequisite_state'),
              HINT = CASE WHEN TG_ARGV[0] IS NULL THEN
                  'Correct a number by appending another event; days past log_retention leave by '
                  '`chancy-metrics prune`, everything by `chancy misc migrate --plugin Metrics -t 0`.' ELSE '' END;
END
$$;


--
-- Name: chancy_metrics_resolution_for(bigint, double precision); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.chancy_metrics_resolution_for(since_s bigint, step_s double precision) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
BEGIN
    RETURN coalesce(
        (
            SELECT resolution
            FROM "chancy_metrics_resolutions"
            WHERE width_s >= step_s
                AND kept_from_s < since_s + width_s
            ORDER BY width_s
            LIMIT 1
        ),
        '1day'
    );
END
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: chancy_jobs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_jobs (
    id uuid NOT NULL,
    queue text NOT NULL,
    func text NOT NULL,
    kwargs jsonb DEFAULT '{}'::json NOT NULL,
    limits jsonb DEFAULT '[]'::json NOT NULL,
    meta jsonb DEFAULT '{}'::json NOT NULL,
    state character varying(25) DEFAULT 'pending'::character varying NOT NULL,
    priority integer DEFAULT 0,
    attempts integer DEFAULT 0,
    max_attempts integer DEFAULT 1 NOT NULL,
    taken_by text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    scheduled_at timestamp with time zone DEFAULT now() NOT NULL,
    unique_key text,
    errors jsonb DEFAULT '[]'::json NOT NULL,
    claim_id uuid
);


--
-- Name: chancy_leader; Type: TABLE; Schema: public; Owner: -
--

CREATE UNLOGGED TABLE public.chancy_leader (
    id bigint NOT NULL,
    worker_id text NOT NULL,
    first_seen timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);


--
-- Name: chancy_leader_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE UNLOGGED SEQUENCE public.chancy_leader_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: chancy_leader_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.chancy_leader_id_seq OWNED BY public.chancy_leader.id;


--
-- Name: chancy_metrics_1day; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_1day (
    version integer NOT NULL,
    series integer NOT NULL,
    bucket bigint NOT NULL,
    count bigint NOT NULL,
    last_us bigint NOT NULL,
    sum numeric NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    last double precision,
    last_position bigint,
    last_index integer,
    p50 double precision,
    p95 double precision,
    p99 double precision,
    sketch bytea
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_1day ALTER COLUMN sketch SET STORAGE MAIN;


--
-- Name: chancy_metrics_1hour; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_1hour (
    version integer NOT NULL,
    series integer NOT NULL,
    bucket bigint NOT NULL,
    count bigint NOT NULL,
    last_us bigint NOT NULL,
    sum numeric NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    last double precision,
    last_position bigint,
    last_index integer,
    p50 double precision,
    p95 double precision,
    p99 double precision,
    sketch bytea
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_1hour ALTER COLUMN sketch SET STORAGE MAIN;


--
-- Name: chancy_metrics_1min; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_1min (
    version integer NOT NULL,
    series integer NOT NULL,
    bucket bigint NOT NULL,
    count bigint NOT NULL,
    last_us bigint NOT NULL,
    sum numeric NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    last double precision,
    last_position bigint,
    last_index integer,
    p50 double precision,
    p95 double precision,
    p99 double precision,
    sketch bytea
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_1min ALTER COLUMN sketch SET STORAGE MAIN;


--
-- Name: chancy_metrics_5min; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_5min (
    version integer NOT NULL,
    series integer NOT NULL,
    bucket bigint NOT NULL,
    count bigint NOT NULL,
    last_us bigint NOT NULL,
    sum numeric NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    last double precision,
    last_position bigint,
    last_index integer,
    p50 double precision,
    p95 double precision,
    p99 double precision,
    sketch bytea
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_5min ALTER COLUMN sketch SET STORAGE MAIN;


--
-- Name: chancy_metrics_cache; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_cache (
    fold bigint NOT NULL,
    version integer NOT NULL,
    "position" bigint NOT NULL,
    token uuid NOT NULL,
    points bytea NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_cache ALTER COLUMN points SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_days; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_days (
    day date NOT NULL,
    state text NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    last_position bigint,
    last_us bigint,
    CONSTRAINT chancy_metrics_days_state_check CHECK ((state = ANY (ARRAY['attached'::text, 'closed'::text, 'absorbed'::text, 'gone'::text])))
);


--
-- Name: chancy_metrics_dead_letters; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_dead_letters (
    version integer NOT NULL,
    "position" bigint NOT NULL,
    rule text DEFAULT ''::text NOT NULL,
    error text NOT NULL,
    events integer,
    first_us bigint,
    last_us bigint,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    discarded_at timestamp with time zone,
    discarded_by text,
    why text
);


--
-- Name: chancy_metrics_head; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_head (
    one boolean DEFAULT true NOT NULL,
    "position" bigint NOT NULL,
    chain bytea NOT NULL,
    live integer NOT NULL,
    blocked_rules text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT chancy_metrics_head_one_check CHECK (one)
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);


--
-- Name: chancy_metrics_series; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_series (
    id integer NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    unit text NOT NULL,
    subject text GENERATED ALWAYS AS (
CASE
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN 'job'::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN 'queue'::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(throughput)$'::text)) THEN 'queue'::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^global:status:(.*)$'::text)) THEN 'global'::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^job:(.*):(execution_time|wait_time|total_time)$'::text)) THEN 'job'::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(execution_time|wait_time|total_time)$'::text)) THEN 'queue'::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'attempts'::text) AND (key ~ '^job:(.*):(attempts)$'::text)) THEN 'job'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'jobs'::text) AND (key ~ '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text)) THEN 'queue'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(oldest_wait_seconds)$'::text)) THEN 'queue'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'workers'::text) AND (key ~ '^workers:(active)$'::text)) THEN 'workers'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'slots'::text) AND (key ~ '^workers:(slots_used|slots)$'::text)) THEN 'workers'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'bytes'::text) AND (key ~ '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text)) THEN 'table'::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'count'::text) AND (key ~ '^metrics:(drift)$'::text)) THEN 'pipeline'::text
    ELSE 'custom'::text
END) STORED,
    name text GENERATED ALWAYS AS (
CASE
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN (regexp_match(key, '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text))[1]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN (regexp_match(key, '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text))[1]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(throughput)$'::text)) THEN (regexp_match(key, '^queue:(.*):(throughput)$'::text))[1]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^global:status:(.*)$'::text)) THEN NULL::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^job:(.*):(execution_time|wait_time|total_time)$'::text)) THEN (regexp_match(key, '^job:(.*):(execution_time|wait_time|total_time)$'::text))[1]
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(execution_time|wait_time|total_time)$'::text)) THEN (regexp_match(key, '^queue:(.*):(execution_time|wait_time|total_time)$'::text))[1]
    WHEN ((kind = 'histogram'::text) AND (unit = 'attempts'::text) AND (key ~ '^job:(.*):(attempts)$'::text)) THEN (regexp_match(key, '^job:(.*):(attempts)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'jobs'::text) AND (key ~ '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text)) THEN (regexp_match(key, '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(oldest_wait_seconds)$'::text)) THEN (regexp_match(key, '^queue:(.*):(oldest_wait_seconds)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'workers'::text) AND (key ~ '^workers:(active)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'slots'::text) AND (key ~ '^workers:(slots_used|slots)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'bytes'::text) AND (key ~ '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text)) THEN (regexp_match(key, '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'count'::text) AND (key ~ '^metrics:(drift)$'::text)) THEN NULL::text
    ELSE NULL::text
END) STORED,
    measure text GENERATED ALWAYS AS (
CASE
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN 'updates'::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN 'updates'::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(throughput)$'::text)) THEN (regexp_match(key, '^queue:(.*):(throughput)$'::text))[2]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^global:status:(.*)$'::text)) THEN 'updates'::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^job:(.*):(execution_time|wait_time|total_time)$'::text)) THEN (regexp_match(key, '^job:(.*):(execution_time|wait_time|total_time)$'::text))[2]
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(execution_time|wait_time|total_time)$'::text)) THEN (regexp_match(key, '^queue:(.*):(execution_time|wait_time|total_time)$'::text))[2]
    WHEN ((kind = 'histogram'::text) AND (unit = 'attempts'::text) AND (key ~ '^job:(.*):(attempts)$'::text)) THEN (regexp_match(key, '^job:(.*):(attempts)$'::text))[2]
    WHEN ((kind = 'gauge'::text) AND (unit = 'jobs'::text) AND (key ~ '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text)) THEN (regexp_match(key, '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text))[2]
    WHEN ((kind = 'gauge'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(oldest_wait_seconds)$'::text)) THEN (regexp_match(key, '^queue:(.*):(oldest_wait_seconds)$'::text))[2]
    WHEN ((kind = 'gauge'::text) AND (unit = 'workers'::text) AND (key ~ '^workers:(active)$'::text)) THEN (regexp_match(key, '^workers:(active)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'slots'::text) AND (key ~ '^workers:(slots_used|slots)$'::text)) THEN (regexp_match(key, '^workers:(slots_used|slots)$'::text))[1]
    WHEN ((kind = 'gauge'::text) AND (unit = 'bytes'::text) AND (key ~ '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text)) THEN (regexp_match(key, '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text))[2]
    WHEN ((kind = 'gauge'::text) AND (unit = 'count'::text) AND (key ~ '^metrics:(drift)$'::text)) THEN (regexp_match(key, '^metrics:(drift)$'::text))[1]
    ELSE NULL::text
END) STORED,
    state text GENERATED ALWAYS AS (
CASE
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN (regexp_match(key, '^job:(.*):(pending|running|failed|retrying|succeeded)$'::text))[2]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text)) THEN (regexp_match(key, '^queue:(.*):(pending|running|failed|retrying|succeeded)$'::text))[2]
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^queue:(.*):(throughput)$'::text)) THEN NULL::text
    WHEN ((kind = 'counter'::text) AND (unit = 'count'::text) AND (key ~ '^global:status:(.*)$'::text)) THEN (regexp_match(key, '^global:status:(.*)$'::text))[1]
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^job:(.*):(execution_time|wait_time|total_time)$'::text)) THEN NULL::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(execution_time|wait_time|total_time)$'::text)) THEN NULL::text
    WHEN ((kind = 'histogram'::text) AND (unit = 'attempts'::text) AND (key ~ '^job:(.*):(attempts)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'jobs'::text) AND (key ~ '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text)) THEN (regexp_match(key, '^queue:(.*):(depth):(pending|running|retrying|scheduled)$'::text))[3]
    WHEN ((kind = 'gauge'::text) AND (unit = 'seconds'::text) AND (key ~ '^queue:(.*):(oldest_wait_seconds)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'workers'::text) AND (key ~ '^workers:(active)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'slots'::text) AND (key ~ '^workers:(slots_used|slots)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'bytes'::text) AND (key ~ '^table:(.*):(total_size_bytes|table_size_bytes|index_size_bytes)$'::text)) THEN NULL::text
    WHEN ((kind = 'gauge'::text) AND (unit = 'count'::text) AND (key ~ '^metrics:(drift)$'::text)) THEN NULL::text
    ELSE NULL::text
END) STORED,
    CONSTRAINT chancy_metrics_series_kind_check CHECK ((kind = ANY (ARRAY['counter'::text, 'gauge'::text, 'histogram'::text])))
);


--
-- Name: chancy_metrics_keys; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_keys AS
 SELECT chancy_metrics_series.id,
    chancy_metrics_series.key,
    chancy_metrics_series.kind,
    chancy_metrics_series.unit,
    chancy_metrics_series.subject,
    chancy_metrics_series.name,
        CASE chancy_metrics_series.subject
            WHEN 'job'::text THEN chancy_metrics_series.name
            ELSE NULL::text
        END AS func,
        CASE chancy_metrics_series.subject
            WHEN 'queue'::text THEN chancy_metrics_series.name
            ELSE NULL::text
        END AS queue,
    chancy_metrics_series.state,
    COALESCE(chancy_metrics_series.measure, chancy_metrics_series.key) AS measure
   FROM public.chancy_metrics_series;


--
-- Name: chancy_metrics_ledger; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_ledger (
    "position" bigint NOT NULL,
    day date NOT NULL,
    bytes integer NOT NULL,
    producer uuid NOT NULL,
    sequence bigint NOT NULL,
    events integer NOT NULL,
    chain bytea NOT NULL,
    CONSTRAINT chancy_metrics_ledger_bytes_check CHECK ((bytes >= 0))
);


--
-- Name: chancy_metrics_log; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_log (
    day date NOT NULL,
    producer uuid NOT NULL,
    sequence public.chancy_metrics_batch_sequence NOT NULL,
    worker public.chancy_metrics_batch_worker NOT NULL,
    first_us public.chancy_metrics_batch_us,
    last_us public.chancy_metrics_batch_us,
    appended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    events public.chancy_metrics_batch_events NOT NULL,
    closes boolean NOT NULL,
    codec public.chancy_metrics_batch_codec NOT NULL,
    payload public.chancy_metrics_batch_payload NOT NULL,
    sha256 public.chancy_metrics_batch_sha256 NOT NULL,
    CONSTRAINT in_order CHECK (((first_us)::bigint <= (last_us)::bigint))
)
PARTITION BY RANGE (day);
ALTER TABLE ONLY public.chancy_metrics_log ALTER COLUMN payload SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_log_20261130; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_log_20261130 (
    day date NOT NULL,
    producer uuid NOT NULL,
    sequence public.chancy_metrics_batch_sequence NOT NULL,
    worker public.chancy_metrics_batch_worker NOT NULL,
    first_us public.chancy_metrics_batch_us,
    last_us public.chancy_metrics_batch_us,
    appended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    events public.chancy_metrics_batch_events NOT NULL,
    closes boolean NOT NULL,
    codec public.chancy_metrics_batch_codec NOT NULL,
    payload public.chancy_metrics_batch_payload NOT NULL,
    sha256 public.chancy_metrics_batch_sha256 NOT NULL,
    CONSTRAINT in_order CHECK (((first_us)::bigint <= (last_us)::bigint))
);
ALTER TABLE ONLY public.chancy_metrics_log_20261130 ALTER COLUMN payload SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_versions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_versions (
    version integer NOT NULL,
    rules integer NOT NULL,
    user_rules integer NOT NULL,
    rule_names text[] NOT NULL,
    status text NOT NULL,
    "position" bigint NOT NULL,
    folds bigint DEFAULT 0 NOT NULL,
    horizon_1min bigint DEFAULT 0 NOT NULL,
    horizon_5min bigint DEFAULT 0 NOT NULL,
    horizon_1hour bigint DEFAULT 0 NOT NULL,
    horizon_1day bigint DEFAULT 0 NOT NULL,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_by text NOT NULL,
    auto_promote boolean DEFAULT true NOT NULL,
    live_since timestamp with time zone,
    replaced integer,
    baseline integer DEFAULT 0 NOT NULL,
    archives jsonb,
    kept_until timestamp with time zone,
    verified jsonb,
    folded_at timestamp with time zone,
    folded_by text,
    folding_since timestamp with time zone,
    fold_events bigint,
    fold_us bigint,
    CONSTRAINT chancy_metrics_versions_status_check CHECK ((status = ANY (ARRAY['baseline'::text, 'collecting'::text, 'copying'::text, 'backfilling'::text, 'ready'::text, 'live'::text, 'standby'::text, 'dropped'::text, 'totals_copying'::text, 'totals_backfilling'::text, 'totals'::text, 'totals_dropped'::text])))
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);


--
-- Name: chancy_metrics_points_1day; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_points_1day AS
 SELECT to_timestamp((r.bucket)::double precision) AS "time",
    k.key,
    k.kind,
    k.unit,
    k.subject,
    k.name,
    k.func,
    k.queue,
    k.state,
    k.measure,
    r.count,
    r.sum,
    (r.sum / (r.count)::numeric) AS avg,
    r.min,
    r.max,
    r.p50,
    r.p95,
    r.p99,
    r.last,
    ('1970-01-01 05:30:00+05:30'::timestamp with time zone + ((r.last_us)::double precision * '00:00:00.000001'::interval)) AS last_at,
    r.bucket,
    86400 AS width_s
   FROM (((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     JOIN public.chancy_metrics_1day r ON (((r.version = h.live) AND (r.bucket >= v.horizon_1day))))
     JOIN public.chancy_metrics_keys k ON ((k.id = r.series)))
  WHERE (((r.bucket % (86400)::bigint) = 0) AND ((r.count >= 1) AND (r.count <= '9007199254740992'::bigint)) AND (r.sum > '-Infinity'::numeric) AND (r.sum < 'Infinity'::numeric) AND (r.min > '-Infinity'::double precision) AND (r.max < 'Infinity'::double precision) AND (r.min <= r.max) AND ((r.last IS NULL) OR ((r.last > '-Infinity'::double precision) AND (r.last < 'Infinity'::double precision))) AND ((r.last_us >= '-62135596800000000'::bigint) AND (r.last_us <= '576460752303423488'::bigint)) AND ((r.bucket >= '-62135683200'::bigint) AND (r.bucket <= '576460752303'::bigint)) AND ((COALESCE(r.last_position, (0)::bigint) >= 0) AND (COALESCE(r.last_position, (0)::bigint) <= '4611686018427387904'::bigint)));


--
-- Name: chancy_metrics_points_1hour; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_points_1hour AS
 SELECT to_timestamp((r.bucket)::double precision) AS "time",
    k.key,
    k.kind,
    k.unit,
    k.subject,
    k.name,
    k.func,
    k.queue,
    k.state,
    k.measure,
    r.count,
    r.sum,
    (r.sum / (r.count)::numeric) AS avg,
    r.min,
    r.max,
    r.p50,
    r.p95,
    r.p99,
    r.last,
    ('1970-01-01 05:30:00+05:30'::timestamp with time zone + ((r.last_us)::double precision * '00:00:00.000001'::interval)) AS last_at,
    r.bucket,
    3600 AS width_s
   FROM (((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     JOIN public.chancy_metrics_1hour r ON (((r.version = h.live) AND (r.bucket >= v.horizon_1hour))))
     JOIN public.chancy_metrics_keys k ON ((k.id = r.series)))
  WHERE (((r.bucket % (3600)::bigint) = 0) AND ((r.count >= 1) AND (r.count <= '9007199254740992'::bigint)) AND (r.sum > '-Infinity'::numeric) AND (r.sum < 'Infinity'::numeric) AND (r.min > '-Infinity'::double precision) AND (r.max < 'Infinity'::double precision) AND (r.min <= r.max) AND ((r.last IS NULL) OR ((r.last > '-Infinity'::double precision) AND (r.last < 'Infinity'::double precision))) AND ((r.last_us >= '-62135596800000000'::bigint) AND (r.last_us <= '576460752303423488'::bigint)) AND ((r.bucket >= '-62135683200'::bigint) AND (r.bucket <= '576460752303'::bigint)) AND ((COALESCE(r.last_position, (0)::bigint) >= 0) AND (COALESCE(r.last_position, (0)::bigint) <= '4611686018427387904'::bigint)));


--
-- Name: chancy_metrics_points_1min; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_points_1min AS
 SELECT to_timestamp((r.bucket)::double precision) AS "time",
    k.key,
    k.kind,
    k.unit,
    k.subject,
    k.name,
    k.func,
    k.queue,
    k.state,
    k.measure,
    r.count,
    r.sum,
    (r.sum / (r.count)::numeric) AS avg,
    r.min,
    r.max,
    r.p50,
    r.p95,
    r.p99,
    r.last,
    ('1970-01-01 05:30:00+05:30'::timestamp with time zone + ((r.last_us)::double precision * '00:00:00.000001'::interval)) AS last_at,
    r.bucket,
    60 AS width_s
   FROM (((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     JOIN public.chancy_metrics_1min r ON (((r.version = h.live) AND (r.bucket >= v.horizon_1min))))
     JOIN public.chancy_metrics_keys k ON ((k.id = r.series)))
  WHERE (((r.bucket % (60)::bigint) = 0) AND ((r.count >= 1) AND (r.count <= '9007199254740992'::bigint)) AND (r.sum > '-Infinity'::numeric) AND (r.sum < 'Infinity'::numeric) AND (r.min > '-Infinity'::double precision) AND (r.max < 'Infinity'::double precision) AND (r.min <= r.max) AND ((r.last IS NULL) OR ((r.last > '-Infinity'::double precision) AND (r.last < 'Infinity'::double precision))) AND ((r.last_us >= '-62135596800000000'::bigint) AND (r.last_us <= '576460752303423488'::bigint)) AND ((r.bucket >= '-62135683200'::bigint) AND (r.bucket <= '576460752303'::bigint)) AND ((COALESCE(r.last_position, (0)::bigint) >= 0) AND (COALESCE(r.last_position, (0)::bigint) <= '4611686018427387904'::bigint)));


--
-- Name: chancy_metrics_points_5min; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_points_5min AS
 SELECT to_timestamp((r.bucket)::double precision) AS "time",
    k.key,
    k.kind,
    k.unit,
    k.subject,
    k.name,
    k.func,
    k.queue,
    k.state,
    k.measure,
    r.count,
    r.sum,
    (r.sum / (r.count)::numeric) AS avg,
    r.min,
    r.max,
    r.p50,
    r.p95,
    r.p99,
    r.last,
    ('1970-01-01 05:30:00+05:30'::timestamp with time zone + ((r.last_us)::double precision * '00:00:00.000001'::interval)) AS last_at,
    r.bucket,
    300 AS width_s
   FROM (((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     JOIN public.chancy_metrics_5min r ON (((r.version = h.live) AND (r.bucket >= v.horizon_5min))))
     JOIN public.chancy_metrics_keys k ON ((k.id = r.series)))
  WHERE (((r.bucket % (300)::bigint) = 0) AND ((r.count >= 1) AND (r.count <= '9007199254740992'::bigint)) AND (r.sum > '-Infinity'::numeric) AND (r.sum < 'Infinity'::numeric) AND (r.min > '-Infinity'::double precision) AND (r.max < 'Infinity'::double precision) AND (r.min <= r.max) AND ((r.last IS NULL) OR ((r.last > '-Infinity'::double precision) AND (r.last < 'Infinity'::double precision))) AND ((r.last_us >= '-62135596800000000'::bigint) AND (r.last_us <= '576460752303423488'::bigint)) AND ((r.bucket >= '-62135683200'::bigint) AND (r.bucket <= '576460752303'::bigint)) AND ((COALESCE(r.last_position, (0)::bigint) >= 0) AND (COALESCE(r.last_position, (0)::bigint) <= '4611686018427387904'::bigint)));


--
-- Name: chancy_metrics_points; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_points AS
 SELECT '1min'::text AS resolution,
    p."time",
    p.key,
    p.kind,
    p.unit,
    p.subject,
    p.name,
    p.func,
    p.queue,
    p.state,
    p.measure,
    p.count,
    p.sum,
    p.avg,
    p.min,
    p.max,
    p.p50,
    p.p95,
    p.p99,
    p.last,
    p.last_at,
    p.bucket,
    p.width_s
   FROM public.chancy_metrics_points_1min p
UNION ALL
 SELECT '5min'::text AS resolution,
    p."time",
    p.key,
    p.kind,
    p.unit,
    p.subject,
    p.name,
    p.func,
    p.queue,
    p.state,
    p.measure,
    p.count,
    p.sum,
    p.avg,
    p.min,
    p.max,
    p.p50,
    p.p95,
    p.p99,
    p.last,
    p.last_at,
    p.bucket,
    p.width_s
   FROM public.chancy_metrics_points_5min p
UNION ALL
 SELECT '1hour'::text AS resolution,
    p."time",
    p.key,
    p.kind,
    p.unit,
    p.subject,
    p.name,
    p.func,
    p.queue,
    p.state,
    p.measure,
    p.count,
    p.sum,
    p.avg,
    p.min,
    p.max,
    p.p50,
    p.p95,
    p.p99,
    p.last,
    p.last_at,
    p.bucket,
    p.width_s
   FROM public.chancy_metrics_points_1hour p
UNION ALL
 SELECT '1day'::text AS resolution,
    p."time",
    p.key,
    p.kind,
    p.unit,
    p.subject,
    p.name,
    p.func,
    p.queue,
    p.state,
    p.measure,
    p.count,
    p.sum,
    p.avg,
    p.min,
    p.max,
    p.p50,
    p.p95,
    p.p99,
    p.last,
    p.last_at,
    p.bucket,
    p.width_s
   FROM public.chancy_metrics_points_1day p;


--
-- Name: chancy_metrics_marks; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_marks AS
 SELECT m.last_at AS "time",
    substr(m.key, 6) AS text,
    (m.sum)::bigint AS count
   FROM ( SELECT DISTINCT ON (chancy_metrics_points.last_at, chancy_metrics_points.key) chancy_metrics_points.last_at,
            chancy_metrics_points.key,
            chancy_metrics_points.sum
           FROM public.chancy_metrics_points
          WHERE ((chancy_metrics_points.key > 'mark:'::text) AND (chancy_metrics_points.key < 'mark;'::text) AND (chancy_metrics_points.kind = 'counter'::text))
          ORDER BY chancy_metrics_points.last_at, chancy_metrics_points.key, chancy_metrics_points.width_s) m
  WHERE (m.sum > (0)::numeric);


--
-- Name: chancy_metrics_pending; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_pending (
    id bigint NOT NULL,
    day public.chancy_metrics_batch_day NOT NULL,
    producer uuid NOT NULL,
    sequence public.chancy_metrics_batch_sequence NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);


--
-- Name: chancy_metrics_pending_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.chancy_metrics_pending ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.chancy_metrics_pending_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: chancy_metrics_spill; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_spill (
    day public.chancy_metrics_batch_day NOT NULL,
    producer uuid NOT NULL,
    sequence public.chancy_metrics_batch_sequence NOT NULL,
    worker public.chancy_metrics_batch_worker NOT NULL,
    first_us public.chancy_metrics_batch_us,
    last_us public.chancy_metrics_batch_us,
    appended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    events public.chancy_metrics_batch_events NOT NULL,
    closes boolean NOT NULL,
    codec public.chancy_metrics_batch_codec NOT NULL,
    payload public.chancy_metrics_batch_payload NOT NULL,
    sha256 public.chancy_metrics_batch_sha256 NOT NULL,
    CONSTRAINT in_order CHECK (((first_us)::bigint <= (last_us)::bigint))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_spill ALTER COLUMN payload SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_pipeline; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_pipeline AS
 SELECT h.live AS version,
    v."position",
    COALESCE(v.folded_at, v.live_since, v.created_at) AS folded_at,
    ((GREATEST((h."position" - v."position"), (0)::bigint) + ( SELECT count(*) AS count
           FROM public.chancy_metrics_pending)) + ( SELECT count(*) AS count
           FROM public.chancy_metrics_spill)) AS waiting_batches,
    COALESCE(GREATEST((EXTRACT(epoch FROM (clock_timestamp() - w.oldest)))::double precision, (0)::double precision), (0)::double precision) AS lag_s,
    ( SELECT count(*) AS count
           FROM public.chancy_metrics_dead_letters d
          WHERE ((d.version = h.live) AND (d.discarded_at IS NULL))) AS dead_letters
   FROM (((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     CROSS JOIN LATERAL ( SELECT min(l.appended_at) AS oldest
           FROM ((( SELECT chancy_metrics_pending.day,
                    chancy_metrics_pending.producer,
                    chancy_metrics_pending.sequence
                   FROM public.chancy_metrics_pending
                  ORDER BY chancy_metrics_pending.id
                 LIMIT 1)
                UNION ALL
                 SELECT chancy_metrics_ledger.day,
                    chancy_metrics_ledger.producer,
                    chancy_metrics_ledger.sequence
                   FROM public.chancy_metrics_ledger
                  WHERE (chancy_metrics_ledger."position" = (v."position" + 1))) b
             JOIN public.chancy_metrics_log l USING (day, producer, sequence))) of_log)
     CROSS JOIN LATERAL ( SELECT LEAST(of_log.oldest, ( SELECT min(chancy_metrics_spill.appended_at) AS min
                   FROM public.chancy_metrics_spill)) AS oldest) w);


--
-- Name: chancy_metrics_producers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_producers (
    producer uuid NOT NULL,
    worker text NOT NULL,
    last_sequence bigint NOT NULL,
    closed boolean NOT NULL,
    holes bigint NOT NULL,
    seen_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);


--
-- Name: chancy_metrics_resolutions; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.chancy_metrics_resolutions AS
 SELECT r.resolution,
    r.width_s,
    r.kept_from_s
   FROM ((public.chancy_metrics_head h
     JOIN public.chancy_metrics_versions v ON ((v.version = h.live)))
     CROSS JOIN LATERAL ( VALUES ('1min'::text,60,v.horizon_1min), ('5min'::text,300,v.horizon_5min), ('1hour'::text,3600,v.horizon_1hour), ('1day'::text,86400,v.horizon_1day)) r(resolution, width_s, kept_from_s));


--
-- Name: chancy_metrics_series_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.chancy_metrics_series ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.chancy_metrics_series_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: chancy_metrics_sessions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_sessions (
    session uuid NOT NULL,
    worker text NOT NULL,
    producers uuid[] NOT NULL,
    append_interval double precision NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    held jsonb,
    fold_error text,
    written_by name DEFAULT CURRENT_USER NOT NULL,
    CONSTRAINT session_in_bounds CHECK (((char_length(worker) <= 1024) AND (cardinality(producers) <= 10000) AND ((append_interval >= (0)::double precision) AND (append_interval <= ('3155760000'::bigint)::double precision)) AND (seen_at >= '1970-01-01 05:30:00+05:30'::timestamp with time zone) AND (seen_at <= '2200-01-01 05:29:59+05:30'::timestamp with time zone) AND (ended_at >= '1970-01-01 05:30:00+05:30'::timestamp with time zone) AND (ended_at <= '2200-01-01 05:29:59+05:30'::timestamp with time zone) AND (octet_length((held)::text) <= 10000) AND (char_length(fold_error) <= 10000)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='10000', vacuum_truncate=off);


--
-- Name: chancy_metrics_set_aside; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_set_aside (
    id bigint NOT NULL,
    day text NOT NULL,
    producer uuid NOT NULL,
    sequence bigint NOT NULL,
    why text NOT NULL,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);


--
-- Name: chancy_metrics_set_aside_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.chancy_metrics_set_aside ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.chancy_metrics_set_aside_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: chancy_metrics_summaries; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_summaries (
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    day date NOT NULL,
    first_us bigint,
    last_us bigint,
    events bigint NOT NULL,
    format smallint NOT NULL,
    filter bytea,
    digest bytea
);
ALTER TABLE ONLY public.chancy_metrics_summaries ALTER COLUMN filter SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_totals; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_totals (
    version integer NOT NULL,
    series integer NOT NULL,
    bucket bigint NOT NULL,
    count bigint NOT NULL,
    last_us bigint NOT NULL,
    sum numeric NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    last double precision,
    last_position bigint,
    last_index integer,
    p50 double precision,
    p95 double precision,
    p99 double precision,
    sketch bytea,
    created_us bigint
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_totals ALTER COLUMN sketch SET STORAGE MAIN;


--
-- Name: chancy_metrics_worker_segments; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_worker_segments (
    version integer NOT NULL,
    worker integer NOT NULL,
    resolution integer NOT NULL,
    fold bigint NOT NULL,
    part integer NOT NULL,
    first_s bigint NOT NULL,
    end_s bigint NOT NULL,
    cells integer NOT NULL,
    data bytea NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_scale_factor='0.2', vacuum_truncate=off);
ALTER TABLE ONLY public.chancy_metrics_worker_segments ALTER COLUMN data SET STORAGE EXTERNAL;


--
-- Name: chancy_metrics_workers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_metrics_workers (
    id integer NOT NULL,
    name text NOT NULL
);


--
-- Name: chancy_metrics_workers_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

ALTER TABLE public.chancy_metrics_workers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.chancy_metrics_workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: chancy_queue_rate_limits; Type: TABLE; Schema: public; Owner: -
--

CREATE UNLOGGED TABLE public.chancy_queue_rate_limits (
    queue character varying(255) NOT NULL,
    window_start integer NOT NULL,
    count integer DEFAULT 0 NOT NULL
);


--
-- Name: chancy_queues; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_queues (
    name text NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    concurrency integer DEFAULT 1,
    tags text[],
    executor text DEFAULT 'chancy.executors.process.ProcessExecutor'::text NOT NULL,
    executor_options jsonb,
    polling_interval integer DEFAULT 1,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    rate_limit integer,
    rate_limit_window integer,
    resume_at timestamp with time zone,
    eager_polling boolean DEFAULT false NOT NULL
);


--
-- Name: chancy_schema_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_schema_version (
    version_of character varying(255) NOT NULL,
    version integer
);


--
-- Name: chancy_workers; Type: TABLE; Schema: public; Owner: -
--

CREATE UNLOGGED TABLE public.chancy_workers (
    worker_id text NOT NULL,
    tags text[],
    queues text[],
    last_seen timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);


--
-- Name: chancy_workflow_steps; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_workflow_steps (
    id integer NOT NULL,
    workflow_id uuid,
    step_id text NOT NULL,
    job_data jsonb NOT NULL,
    dependencies jsonb NOT NULL,
    job_id uuid,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now()
);


--
-- Name: chancy_workflow_steps_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.chancy_workflow_steps_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: chancy_workflow_steps_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.chancy_workflow_steps_id_seq OWNED BY public.chancy_workflow_steps.id;


--
-- Name: chancy_workflows; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.chancy_workflows (
    id uuid NOT NULL,
    name text NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now()
);


--
-- Name: chancy_metrics_log_20261130; Type: TABLE ATTACH; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_log ATTACH PARTITION public.chancy_metrics_log_20261130 FOR VALUES FROM ('2026-11-30') TO ('2026-12-01');


--
-- Name: chancy_leader id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_leader ALTER COLUMN id SET DEFAULT nextval('public.chancy_leader_id_seq'::regclass);


--
-- Name: chancy_workflow_steps id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_workflow_steps ALTER COLUMN id SET DEFAULT nextval('public.chancy_workflow_steps_id_seq'::regclass);


--
-- Data for Name: chancy_jobs; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_jobs (id, queue, func, kwargs, limits, meta, state, priority, attempts, max_attempts, taken_by, created_at, started_at, completed_at, scheduled_at, unique_key, errors, claim_id) FROM stdin;
\.


--
-- Data for Name: chancy_leader; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_leader (id, worker_id, first_seen, expires_at) FROM stdin;
\.


--
-- Data for Name: chancy_metrics_1day; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_1day (version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch) FROM stdin;
1	1	1795737600	8	1795746613192972	7776	972	972	972	3	8	\N	\N	\N	\N
1	1	1795996800	8	1796005813192972	7776	972	972	972	4	8	\N	\N	\N	\N
1	2	1795737600	16	1795746613192972	56.8000000000000000444089209850062616169452667236328125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795996800	16	1796005813192972	56.8000000000000000444089209850062616169452667236328125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	3	1795737600	16	1795746613192972	240.0000000080000000000000004982527316622388513511765495422878302633762359619140625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2608cd08b408
1	3	1795996800	16	1796005813192972	240.0000000080000000000000004982527316622388513511765495422878302633762359619140625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2608cd08b408
1	4	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	6	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	6	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	7	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
1	7	1795996800	8	1796005813192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
1	8	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	10	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	10	1795996800	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	11	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	11	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	12	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
1	12	1795996800	8	1796005813192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
1	13	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	\N	\N	\N	\N
1	16	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	16	1795996800	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	17	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	17	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
0	1	1795737600	8	1795746613192972	7776	972	972	972	3	8	\N	\N	\N	\N
0	2	1795737600	16	1795746613192972	56.8000000000000000444089209850062616169452667236328125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	3	1795737600	16	1795746613192972	240.0000000080000000000000004982527316622388513511765495422878302633762359619140625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2608cd08b408
0	4	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	6	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
0	7	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
0	8	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	10	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
0	11	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
0	12	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
0	13	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	\N	\N	\N	\N
0	16	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
0	17	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
1	18	1795996800	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
2	1	1795737600	8	1795746613192972	7776	972	972	972	3	8	\N	\N	\N	\N
2	2	1795737600	16	1795746613192972	56.8000000000000000444089209850062616169452667236328125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1795737600	16	1795746613192972	240.0000000080000000000000004982527316622388513511765495422878302633762359619140625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2608cd08b408
2	4	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	7	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
2	8	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	11	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	12	1795737600	8	1795746613192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
2	13	1795737600	4	1795746553192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1795737600	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1795737600	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	17	1795737600	8	1795746613192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	1	1795996800	8	1796005813192972	7776	972	972	972	4	8	\N	\N	\N	\N
2	2	1795996800	16	1796005813192972	56.8000000000000000444089209850062616169452667236328125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1795996800	16	1796005813192972	240.0000000080000000000000004982527316622388513511765495422878302633762359619140625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2608cd08b408
2	4	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	7	1795996800	8	1796005813192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
2	8	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1795996800	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	11	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	12	1795996800	8	1796005813192972	4	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f08
2	13	1795996800	4	1796005753192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1795996800	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1795996800	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	17	1795996800	8	1796005813192972	8	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f08
2	18	1795996800	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
\.


--
-- Data for Name: chancy_metrics_1hour; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_1hour (version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch) FROM stdin;
1	1	1795741200	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
1	1	1795744800	6	1795746613192972	5832	972	972	972	3	8	\N	\N	\N	\N
1	1	1796000400	2	1796000473192972	1944	972	972	972	4	11	\N	\N	\N	\N
1	1	1796004000	6	1796005813192972	5832	972	972	972	4	8	\N	\N	\N	\N
1	2	1795741200	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795744800	12	1795746613192972	42.600000000000000033306690738754696212708950042724609375	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796000400	4	1796000473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796004000	12	1796005813192972	42.600000000000000033306690738754696212708950042724609375	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	3	1795741200	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795744800	12	1795746613192972	180.000000006000000000000000373689548746679138513382412156715872697532176971435546875	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2606cd08b406
1	3	1796000400	4	1796000473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796004000	12	1796005813192972	180.000000006000000000000000373689548746679138513382412156715872697532176971435546875	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2606cd08b406
1	4	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	6	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	6	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	7	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
1	7	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796004000	6	1796005813192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
1	8	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	10	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	10	1796004000	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	11	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	11	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	12	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
1	12	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796004000	6	1796005813192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
1	13	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	\N	\N	\N	\N
1	16	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	16	1796004000	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
1	17	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	17	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
0	1	1795741200	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
0	1	1795744800	6	1795746613192972	5832	972	972	972	3	8	\N	\N	\N	\N
0	2	1795741200	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795744800	12	1795746613192972	42.600000000000000033306690738754696212708950042724609375	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	3	1795741200	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795744800	12	1795746613192972	180.000000006000000000000000373689548746679138513382412156715872697532176971435546875	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2606cd08b406
0	4	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	4	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	6	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
0	7	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
0	8	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	8	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	10	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
0	11	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
0	12	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
0	13	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	13	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	\N	\N	\N	\N
0	16	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
0	17	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
1	18	1796004000	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
2	1	1795741200	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
2	1	1795744800	6	1795746613192972	5832	972	972	972	3	8	\N	\N	\N	\N
2	2	1795741200	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1795744800	12	1795746613192972	42.600000000000000033306690738754696212708950042724609375	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1795741200	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1795744800	12	1795746613192972	180.000000006000000000000000373689548746679138513382412156715872697532176971435546875	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2606cd08b406
2	4	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	4	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	7	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
2	8	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	8	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	13	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	11	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	12	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1795744800	6	1795746613192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
2	13	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	13	1795744800	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1795744800	4	1795746613192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1795744800	4	1795746613192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	17	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1795744800	6	1795746613192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	1	1796000400	2	1796000473192972	1944	972	972	972	4	11	\N	\N	\N	\N
2	1	1796004000	6	1796005813192972	5832	972	972	972	4	8	\N	\N	\N	\N
2	2	1796000400	4	1796000473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796004000	12	1796005813192972	42.600000000000000033306690738754696212708950042724609375	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1796000400	4	1796000473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1796004000	12	1796005813192972	180.000000006000000000000000373689548746679138513382412156715872697532176971435546875	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2606cd08b406
2	4	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	4	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	7	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796004000	6	1796005813192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
2	8	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	8	1796004000	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1796004000	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	11	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	12	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796004000	6	1796005813192972	3	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f06
2	13	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1796004000	4	1796005813192972	4	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1796004000	4	1796005813192972	6	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c504
2	17	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796004000	6	1796005813192972	6	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f06
2	18	1796004000	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
\.


--
-- Data for Name: chancy_metrics_1min; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_1min (version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch) FROM stdin;
1	1	1795741260	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
1	1	1795745460	2	1795745473192972	1944	972	972	972	3	10	\N	\N	\N	\N
1	1	1795746540	2	1795746553192972	1944	972	972	972	3	9	\N	\N	\N	\N
1	1	1795746600	2	1795746613192972	1944	972	972	972	3	8	\N	\N	\N	\N
1	1	1796000460	2	1796000473192972	1944	972	972	972	4	11	\N	\N	\N	\N
1	1	1796004660	2	1796004673192972	1944	972	972	972	4	10	\N	\N	\N	\N
1	1	1796005740	2	1796005753192972	1944	972	972	972	4	9	\N	\N	\N	\N
1	1	1796005800	2	1796005813192972	1944	972	972	972	4	8	\N	\N	\N	\N
1	2	1795741260	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795745460	4	1795745473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795746540	4	1795746553192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795746600	4	1795746613192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796000460	4	1796000473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796004660	4	1796004673192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796005740	4	1796005753192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796005800	4	1796005813192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	3	1795741260	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795745460	4	1795745473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795746540	4	1795746553192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795746600	4	1795746613192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796000460	4	1796000473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796004660	4	1796004673192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796005740	4	1796005753192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796005800	4	1796005813192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	4	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	6	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	7	1795741260	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795745460	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795746540	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796000460	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796004660	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796005740	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	8	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	10	1795745460	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1796004660	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	11	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	12	1795741260	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795745460	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795746540	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796000460	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796004660	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796005740	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	13	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	16	1795745460	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1796004660	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	17	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796000460	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	1	1795741260	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
0	1	1795745460	2	1795745473192972	1944	972	972	972	3	10	\N	\N	\N	\N
0	1	1795746540	2	1795746553192972	1944	972	972	972	3	9	\N	\N	\N	\N
0	1	1795746600	2	1795746613192972	1944	972	972	972	3	8	\N	\N	\N	\N
0	2	1795741260	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795745460	4	1795745473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795746540	4	1795746553192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795746600	4	1795746613192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	3	1795741260	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795745460	4	1795745473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795746540	4	1795746553192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795746600	4	1795746613192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	4	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	4	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	6	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	7	1795741260	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795745460	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795746540	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	8	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	8	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	10	1795745460	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	10	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	11	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	12	1795741260	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795745460	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795746540	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	13	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	13	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	16	1795745460	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	16	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	17	1795741260	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795745460	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795746540	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	18	1796005860	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
2	1	1796004660	2	1796004673192972	1944	972	972	972	4	10	\N	\N	\N	\N
2	1	1796005740	2	1796005753192972	1944	972	972	972	4	9	\N	\N	\N	\N
2	1	1796005800	2	1796005813192972	1944	972	972	972	4	8	\N	\N	\N	\N
2	2	1796004660	4	1796004673192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796005740	4	1796005753192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796005800	4	1796005813192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1796004660	4	1796004673192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1796005740	4	1796005753192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1796005800	4	1796005813192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	4	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	7	1796004660	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796005740	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	8	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1796004660	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	10	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	11	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	12	1796004660	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796005740	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	13	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1796004660	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	16	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	17	1796004660	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796005740	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	18	1796005860	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
\.


--
-- Data for Name: chancy_metrics_5min; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_5min (version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch) FROM stdin;
1	1	1795741200	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
1	1	1795745400	2	1795745473192972	1944	972	972	972	3	10	\N	\N	\N	\N
1	1	1795746300	2	1795746553192972	1944	972	972	972	3	9	\N	\N	\N	\N
1	1	1795746600	2	1795746613192972	1944	972	972	972	3	8	\N	\N	\N	\N
1	1	1796000400	2	1796000473192972	1944	972	972	972	4	11	\N	\N	\N	\N
1	1	1796004600	2	1796004673192972	1944	972	972	972	4	10	\N	\N	\N	\N
1	1	1796005500	2	1796005753192972	1944	972	972	972	4	9	\N	\N	\N	\N
1	1	1796005800	2	1796005813192972	1944	972	972	972	4	8	\N	\N	\N	\N
1	2	1795741200	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795745400	4	1795745473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795746300	4	1795746553192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1795746600	4	1795746613192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796000400	4	1796000473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796004600	4	1796004673192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796005500	4	1796005753192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	2	1796005800	4	1796005813192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
1	3	1795741200	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795745400	4	1795745473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795746300	4	1795746553192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1795746600	4	1795746613192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796000400	4	1796000473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796004600	4	1796004673192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796005500	4	1796005753192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	3	1796005800	4	1796005813192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
1	4	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	4	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	5	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	6	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	6	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	7	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795745400	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795746300	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796004600	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796005500	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	7	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	8	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	8	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	9	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	10	1795745400	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1796004600	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	10	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	11	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	11	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	12	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795745400	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795746300	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796004600	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796005500	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	12	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
1	13	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	13	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	14	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	15	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
1	16	1795745400	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1796004600	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	16	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
1	17	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	17	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	1	1795741200	2	1795741273192972	1944	972	972	972	3	11	\N	\N	\N	\N
0	1	1795745400	2	1795745473192972	1944	972	972	972	3	10	\N	\N	\N	\N
0	1	1795746300	2	1795746553192972	1944	972	972	972	3	9	\N	\N	\N	\N
0	1	1795746600	2	1795746613192972	1944	972	972	972	3	8	\N	\N	\N	\N
0	2	1795741200	4	1795741273192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795745400	4	1795745473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795746300	4	1795746553192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	2	1795746600	4	1795746613192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
0	3	1795741200	4	1795741273192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795745400	4	1795745473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795746300	4	1795746553192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	3	1795746600	4	1795746613192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
0	4	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	4	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	5	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	6	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	6	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	7	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795745400	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795746300	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	7	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	8	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	8	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	9	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	10	1795745400	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	10	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	11	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	11	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	12	1795741200	2	1795741273192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795745400	2	1795745473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795746300	2	1795746553192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	12	1795746600	2	1795746613192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
0	13	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	13	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	14	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	15	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
0	16	1795745400	2	1795745473192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	16	1795746600	2	1795746613192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
0	17	1795741200	2	1795741273192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795745400	2	1795745473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795746300	2	1795746553192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
0	17	1795746600	2	1795746613192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
1	18	1796005800	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
2	1	1796000400	2	1796000473192972	1944	972	972	972	4	11	\N	\N	\N	\N
2	1	1796004600	2	1796004673192972	1944	972	972	972	4	10	\N	\N	\N	\N
2	1	1796005500	2	1796005753192972	1944	972	972	972	4	9	\N	\N	\N	\N
2	1	1796005800	2	1796005813192972	1944	972	972	972	4	8	\N	\N	\N	\N
2	2	1796000400	4	1796000473192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796004600	4	1796004673192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796005500	4	1796005753192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	2	1796005800	4	1796005813192972	14.200000000000000011102230246251565404236316680908203125	0.1	7	\N	\N	\N	\N	\N	\N	\N
2	3	1796000400	4	1796000473192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1796004600	4	1796004673192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	3	1796005500	4	1796005753192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	16	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	3	1796005800	4	1796005813192972	60.000000002000000000000000124563182915559712837794137385571957565844058990478515625	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2602cd08b402
2	4	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	4	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	5	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	6	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	6	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	7	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796004600	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796005500	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	7	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	8	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	8	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	9	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	10	1796004600	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	10	1796005800	2	1796005813192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	11	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	11	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	12	1796000400	2	1796000473192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796004600	2	1796004673192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796005500	2	1796005753192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	12	1796005800	2	1796005813192972	1	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f02
2	13	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	13	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	14	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	15	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	\N	\N	\N	\N
2	16	1796004600	2	1796004673192972	3	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c502
2	17	1796000400	2	1796000473192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796004600	2	1796004673192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796005500	2	1796005753192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	17	1796005800	2	1796005813192972	2	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f02
2	18	1796005800	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N
\.


--
-- Data for Name: chancy_metrics_cache; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_cache (fold, version, "position", token, points) FROM stdin;
1	2	5	003e3221-31cb-4fb7-abfb-b18c5dcfb951	\\x80
\.


--
-- Data for Name: chancy_metrics_days; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_days (day, state, changed_at, last_position, last_us) FROM stdin;
2026-11-30	attached	2026-11-30 08:01:13.132265+05:30	\N	\N
2026-11-27	gone	2026-11-30 08:01:14.001279+05:30	3	1795746613192972
\.


--
-- Data for Name: chancy_metrics_dead_letters; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_dead_letters (version, "position", rule, error, events, first_us, last_us, found_at, discarded_at, discarded_by, why) FROM stdin;
\.


--
-- Data for Name: chancy_metrics_head; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_head (one, "position", chain, live, blocked_rules) FROM stdin;
t	5	\\x8f9569d4825edf82c536132efaff520aa4693d3b3526c629be52f120067a296f	2	{}
\.


--
-- Data for Name: chancy_metrics_ledger; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_ledger ("position", day, bytes, producer, sequence, events, chain) FROM stdin;
1	2026-11-27	728	dd93b52d-6112-4496-a0b2-3a86693bf4f9	1	24	\\x5af50d3591b336b9022dfb27b69cee647fc80adad1fb00cb7f1411a1c304864e
2	2026-11-30	728	dd93b52d-6112-4496-a0b2-3a86693bf4f9	2	24	\\xe6cab81ebf4413c4bdc195426552e3943e2c7b050d4ce918381a72cd97b34a25
3	2026-11-27	728	0a09c6ae-107e-4523-9f82-6a2ac1ce837f	1	24	\\x6d33ff7ee76073a25b8f9380fb6c8425bf40898f1d33b92282d932510d27cadf
4	2026-11-30	728	0a09c6ae-107e-4523-9f82-6a2ac1ce837f	2	24	\\x0a2b357f0eccf8ab1b804b21aa182f98936d53bf6ecfd681590b46236fb5f1a5
5	2026-11-30	51	6692e27c-22ea-42c7-a34e-ff53ebe8721c	1	1	\\x8f9569d4825edf82c536132efaff520aa4693d3b3526c629be52f120067a296f
\.


--
-- Data for Name: chancy_metrics_log_20261130; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_log_20261130 (day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload, sha256) FROM stdin;
2026-11-30	dd93b52d-6112-4496-a0b2-3a86693bf4f9	2	worker-a	1796000473192972	1796005813192972	2026-11-30 08:01:13.25928+05:30	24	f	1	\\x93809b95a86170702e776f726ba764656661756c74a9737563636565646564a0a66661696c6564929500010201039500010401039200c404000100019203c400c4406b8855b9751b475488c7099a426d6dd1e15a0ba05733411ab68d7a3b937aaddda2b55ef2234d44f3862e1d78d8caaf7115a7bee006e5421db2e782967d9aa11792cf00066173f2389a0cc42000ef493e010000000068b63a0100000000ea56fa0000000000000000000000009200c40092ce0007a120c40092ce0016e360c4009200c40080949c93a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a86170703a73697a6502a14293a86170703a73697a6502a14293a86170703a73697a6502a14293a86170703a73697a6502a1429c02020202010101010202020292cf00066173f2389a0cc4a000ef493e0100000000ef493e010000000068b63a010000000068b63a0100000000ea56fa0000000000ea56fa000000000000000000000000000000000000000000ef493e010000000068b63a0100000000ea56fa00000000000000000000000000ef493e0100000000ef493e010000000068b63a010000000068b63a0100000000ea56fa0000000000ea56fa0000000000000000000000000000000000000000c4a09a9999999999b93f0000000000001c409a9999999999b93f0000000000001c409a9999999999b93f0000000000001c409a9999999999b93f0000000000001c400000000000608e400000000000608e400000000000608e400000000000608e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e40	\\xa49c09f6608ad25cbe0133b36f20928eb34d12f53c700e8257aa815fb0dbc68b
2026-11-30	0a09c6ae-107e-4523-9f82-6a2ac1ce837f	2	worker-b	1796000473192972	1796005813192972	2026-11-30 08:01:13.304983+05:30	24	f	1	\\x93809b95a86170702e776f726ba764656661756c74a9737563636565646564a0a66661696c6564929500010201039500010401039200c404000100019203c400c4406e661ff331d14fb7b1d8d7f38ab3f5a1aecb4ef5c107450c8602619a09f983e73dc7802ef7f24a0cbda3aebf4939b1736c36a9a9ee7d46479cf376fbafbdc18092cf00066173f2389a0cc42000ef493e010000000068b63a0100000000ea56fa0000000000000000000000009200c40092ce0007a120c40092ce0016e360c4009200c40080949c93a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a56170703a6e00a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a96170703a6c6576656c01a5636f756e7493a86170703a73697a6502a14293a86170703a73697a6502a14293a86170703a73697a6502a14293a86170703a73697a6502a1429c02020202010101010202020292cf00066173f2389a0cc4a000ef493e0100000000ef493e010000000068b63a010000000068b63a0100000000ea56fa0000000000ea56fa000000000000000000000000000000000000000000ef493e010000000068b63a0100000000ea56fa00000000000000000000000000ef493e0100000000ef493e010000000068b63a010000000068b63a0100000000ea56fa0000000000ea56fa0000000000000000000000000000000000000000c4a09a9999999999b93f0000000000001c409a9999999999b93f0000000000001c409a9999999999b93f0000000000001c409a9999999999b93f0000000000001c400000000000608e400000000000608e400000000000608e400000000000608e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e4095d626e80b2e113e0000000000003e40	\\xbdc10e579071d512de5b3f5e98b1a129b50250da3c186bc5dc8d9a6db873457d
2026-11-30	6692e27c-22ea-42c7-a34e-ff53ebe8721c	1	root@vm	1796005874002480	1796005874002480	2026-11-30 08:01:14.014288+05:30	1	t	1	\\x9380c0949193ad6d61726b3a6465706c6f79203100a5636f756e74910192cf0006617534226a30c400c408000000000000f03f	\\x8309a315371fc61c06a52cf748036ba86e432cba21b20948390b7c0e1ce6a196
2026-11-30	b8877154-49b4-43db-9f10-dcd70bb3ecd6	1	worker-late	1796005874881079	1796005874881102	2026-11-30 08:01:14.886324+05:30	2	f	1	\\x93809b94a86170702e776f726ba764656661756c74a9737563636565646564a0919500010201039200c4009203c400c4107f4237f832b640738d76ba90aff7e08692cf00066175342fd237c4009200c40092ce0007a120c40092ce0016e360c4009200c40080949193a56170703a6e00a5636f756e74910192cf00066175342fd24ec400c408000000000000d03f	\\x1ca862dc2104ae7033c42e20b49d21c36c82b414609d349446324de1152b9dd9
\.


--
-- Data for Name: chancy_metrics_pending; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_pending (id, day, producer, sequence) FROM stdin;
6	2026-11-30	b8877154-49b4-43db-9f10-dcd70bb3ecd6	1
\.


--
-- Data for Name: chancy_metrics_producers; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_producers (producer, worker, last_sequence, closed, holes, seen_at) FROM stdin;
0a09c6ae-107e-4523-9f82-6a2ac1ce837f	worker-b	2	f	0	2026-11-30 08:01:13.304983+05:30
dd93b52d-6112-4496-a0b2-3a86693bf4f9	worker-a	2	f	0	2026-11-30 08:01:13.25928+05:30
\.


--
-- Data for Name: chancy_metrics_series; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_series (id, key, kind, unit) FROM stdin;
1	app:level	gauge	count
2	app:n	counter	count
3	app:size	histogram	B
4	global:status:failed	counter	count
5	global:status:succeeded	counter	count
6	job:app.work:attempts	histogram	attempts
7	job:app.work:execution_time	histogram	seconds
8	job:app.work:failed	counter	count
9	job:app.work:succeeded	counter	count
10	job:app.work:total_time	histogram	seconds
11	job:app.work:wait_time	histogram	seconds
12	queue:default:execution_time	histogram	seconds
13	queue:default:failed	counter	count
14	queue:default:succeeded	counter	count
15	queue:default:throughput	counter	count
16	queue:default:total_time	histogram	seconds
17	queue:default:wait_time	histogram	seconds
18	mark:deploy 1	counter	count
\.


--
-- Data for Name: chancy_metrics_sessions; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_sessions (session, worker, producers, append_interval, started_at, seen_at, ended_at, held, fold_error, written_by) FROM stdin;
\.


--
-- Data for Name: chancy_metrics_set_aside; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_set_aside (id, day, producer, sequence, why, found_at) FROM stdin;
\.


--
-- Data for Name: chancy_metrics_spill; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_spill (day, producer, sequence, worker, first_us, last_us, appended_at, events, closes, codec, payload, sha256) FROM stdin;
2026-11-30	b8877154-49b4-43db-9f10-dcd70bb3ecd6	2	worker-late	1796005874888002	1796005874888002	2026-11-30 08:01:14.903439+05:30	1	f	1	\\x9380c0949193a56170703a6e00a5636f756e74910192cf00066175342fed42c400c408000000000000e03f	\\xd78ac656ec32bb3899e33f63dcc6f56e94b4aab5813e53f656be1fc68c71327c
\.


--
-- Data for Name: chancy_metrics_summaries; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_summaries (first_position, last_position, day, first_us, last_us, events, format, filter, digest) FROM stdin;
\.


--
-- Data for Name: chancy_metrics_totals; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_totals (version, series, bucket, count, last_us, sum, min, max, last, last_position, last_index, p50, p95, p99, sketch, created_us) FROM stdin;
3	1	0	16	1796005813192972	15552	972	972	972	4	8	\N	\N	\N	\N	1795737600000000
3	2	0	32	1796005813192972	113.600000000000000088817841970012523233890533447265625	0.1	7	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	3	0	32	1796005813192972	480.000000016000000000000000996505463324477702702353099084575660526752471923828125	1e-09	30	\N	\N	\N	1e-09	30	30	\\x94ce00017f2610cd08b410	1795737600000000
3	4	0	8	1796005753192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	5	0	8	1796005813192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	6	0	16	1796005813192972	16	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f10	1795737600000000
3	7	0	16	1796005813192972	8	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f10	1795737600000000
3	8	0	8	1796005753192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	9	0	8	1796005813192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	10	0	8	1796005813192972	12	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c508	1795737600000000
3	11	0	16	1796005813192972	16	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f10	1795737600000000
3	12	0	16	1796005813192972	8	0.5	0.5	\N	\N	\N	0.5	0.5	0.5	\\x92ce0001865f10	1795737600000000
3	13	0	8	1796005753192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	14	0	8	1796005813192972	8	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	15	0	16	1796005813192972	16	1	1	\N	\N	\N	\N	\N	\N	\N	1795737600000000
3	16	0	8	1796005813192972	12	1.5	1.5	\N	\N	\N	1.5	1.5	1.5	\\x92ce000186c508	1795737600000000
3	17	0	16	1796005813192972	16	1	1	\N	\N	\N	1	1	1	\\x92ce0001869f10	1795737600000000
3	18	0	1	1796005874002480	1	1	1	\N	\N	\N	\N	\N	\N	\N	1795996800000000
\.


--
-- Data for Name: chancy_metrics_versions; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_versions (version, rules, user_rules, rule_names, status, "position", folds, horizon_1min, horizon_5min, horizon_1hour, horizon_1day, counts, created_at, created_by, auto_promote, live_since, replaced, baseline, archives, kept_until, verified, folded_at, folded_by, folding_since, fold_events, fold_us) FROM stdin;
1	3	0	{}	standby	5	2	0	0	0	0	{}	2026-11-30 08:01:13.069792+05:30	migration	t	\N	\N	0	\N	2026-12-01 08:01:14.709199+05:30	\N	2026-11-30 08:01:14.259456+05:30	chancy-metrics fold	2026-11-30 08:01:14.259457+05:30	1	66419
0	3	0	{}	baseline	0	0	0	0	0	0	{}	2026-11-30 08:01:13.069671+05:30	migration	t	\N	\N	0	\N	\N	\N	\N	\N	\N	\N	\N
3	3	0	{}	totals	5	1	4611686018427387904	4611686018427387904	4611686018427387904	0	{}	2026-11-30 08:01:14.779491+05:30	chancy-metrics totals	t	\N	2	0	\N	\N	\N	2026-11-30 08:01:14.853429+05:30	chancy-metrics totals	2026-11-30 08:01:14.779489+05:30	49	27171
2	3	0	{}	live	5	1	1796002320	1795919700	1795402800	1788307200	{}	2026-11-30 08:01:14.306848+05:30	rebuild 207f1aae by root@vm (21791)	t	2026-11-30 08:01:14.710287+05:30	1	0	\N	\N	{"at": null, "seen": {}, "since": null, "spans": 0, "until": null, "faults": [], "points": 0, "checked": null, "rebuilt": {"at": "2026-11-30T02:31:14.673304Z", "points": 351, "version": 1, "position": 5, "different": 0}, "position": 0}	2026-11-30 08:01:14.710287+05:30	rebuild 207f1aae by root@vm (21791)	2026-11-30 08:01:14.306847+05:30	49	52713
\.


--
-- Data for Name: chancy_metrics_worker_segments; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_worker_segments (version, worker, resolution, fold, part, first_s, end_s, cells, data) FROM stdin;
1	1	60	1	0	1795741260	1796005860	104	\\x019f689201c4680000000000000000010000000000000001000000000000000100000001000000010000000000000001000000000000000100000001000000010000000100000000000000010000000000000001000000010000000100000000000000010000000100000000000000ce6b08d64c3c9200c4d0000046001200010087104600120001000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd1013000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd10130046001300cd1013000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd1013000000460012000100871046001200010046001300cd101300000046001200010087104600120001009201c4680000000000000000010101010101010101010101010101010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000ce00c94f0c9200c468313131313131313104040404040404044c4c4c4c4c4c4c4c000000000000000080808080808080808080808080808080000000000000000080808080808080808080808080808080808080800000000000000000000000000000000080808080808080808080808092ce000186a0c501806004ee396004ee396004ee396004ee396004ee396004ee396004ee396004ee390000000000000000000000000000000000000000000000000000000000000000a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600801a0600801a0600801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600801a0600801a0600801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00ce006949200092c44095d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113ec4400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e409400c4009201c40800000000010101019208c4080302010003020100939237c41000000000000000001b1b1b1b1b1b1b1b9208c41000000000000000000303030303030303c498cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c0395d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e11000000789402ce00017f26cd08b49201c41000000000000000000000000000000000
1	2	60	1	0	1795741260	1796005860	104	\\x019f689201c4680000000000000000010000000000000001000000000000000100000001000000010000000000000001000000000000000100000001000000010000000100000000000000010000000000000001000000010000000100000000000000010000000100000000000000ce6b08d64c3c9200c4d0000046001200010087104600120001000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd1013000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd10130046001300cd1013000000460012000100871046001200010000004600120001008710460012000100000058008810580046001300cd1013000000460012000100871046001200010046001300cd101300000046001200010087104600120001009201c4680000000000000000010101010101010101010101010101010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000ce00c94f0c9200c468313131313131313104040404040404044c4c4c4c4c4c4c4c000000000000000080808080808080808080808080808080000000000000000080808080808080808080808080808080808080800000000000000000000000000000000080808080808080808080808092ce000186a0c501806004ee396004ee396004ee396004ee396004ee396004ee396004ee396004ee390000000000000000000000000000000000000000000000000000000000000000a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600801a0600801a0600801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600801a0600801a0600801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00ce006949200092c44095d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113e95d626e80b2e113ec4400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e400000000000003e409400c4009203c40800000000010101019208c4080302010003020100939237c41000000000000000001b1b1b1b1b1b1b1b9208c41000000000000000000303030303030303c498cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c0395d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e110000007895d626e80b2e11000000789402ce00017f26cd08b49201c41000000000000000000000000000000000
0	1	60	-20785	0	1795741260	1795746660	52	\\x0278018d92bf6ac25014c6cf355202b1432c2e75c9945128082294d2491002ae1d32b88a2fe06626a74eb73a9b8770eb92e12e05cd986770ea33f87de68fb622fa837bee77be734e4e205977b5325d01aa3aea9fbeacd049a77616bc6ac1f4a0a9aaf331783ad77f335672a7daaa72f806f790cacfa8c1a52fa00e02c0c1a8e05c4711339217752a6a119b640ce8c605ac522609639951e70ef7b0ffbbe01950862163999d9c5fc0fec7820740d96a3196d9c9e903f6df4b2a93a127da782b90011fec81033ac0056fc078d71ec9ea3b588a11a56d53b76a4abe74cfd89c680398476d0113ecb6e4d3ba76af327fef745cccce6eca650ddf61eeefec0dfe82e30eee3c0062029bf7
0	2	60	-20785	0	1795741260	1795746660	52	\\x0278018d92bf6ac25014c6cf352281b4432a2eed9229a350104428e2240801d70e195c4b5fc0cd4c9d3addea6c1ec2ad4b86bb0835639ec1c967f0fbcc1fff14d11fdc73bff39d737202c9b2a395e90850d55117fa7f854efa6967c19b164c0f9f5475de87cd537d9eb1923bd55695c337b88754d6e3072e7d057510000e4605a73a8a9891bca853515fb14926806e5cc02a659230961975ee700ffb7f0b9e0165183296d9d1d901f63f16340065abc5586647a707d87f2fa97c8c3cd1c65b800cf8600b1cd0062ee803e35d7b24ab0330172396b64dddaa29f9d15d6373e205c03c680b9860f347bead6bf722f3b74edbc5ecf4a69cd7f01d66fec65ee12f38ece0ce3d630e9bf9
1	3	60	2	0	1796005860	1796005920	1	\\x019f019212c40100ce6b0cdfe4010001ce00d5a93000ce000f42400000c0c0c0c0
2	1	60	-20785	0	1795741260	1795746660	52	\\x0278018d92bf6ac25014c6cf355202b1432c2e75c9945128082294d2491002ae1d32b88a2fe06626a74eb73a9b8770eb92e12e05cd986770ea33f87de68fb622fa837bee77be734e4e205977b5325d01aa3aea9fbeacd049a77616bc6ac1f4a0a9aaf331783ad77f335672a7daaa72f806f790cacfa8c1a52fa00e02c0c1a8e05c4711339217752a6a119b640ce8c605ac522609639951e70ef7b0ffbbe01950862163999d9c5fc0fec7820740d96a3196d9c9e903f6df4b2a93a127da782b90011fec81033ac0056fc078d71ec9ea3b588a11a56d53b76a4abe74cfd89c680398476d0113ecb6e4d3ba76af327fef745cccce6eca650ddf61eeefec0dfe82e30eee3c0062029bf7
2	2	60	-20785	0	1795741260	1795746660	52	\\x0278018d92bf6ac25014c6cf352281b4432a2eed9229a350104428e2240801d70e195c4b5fc0cd4c9d3addea6c1ec2ad4b86bb0835639ec1c967f0fbcc1fff14d11fdc73bff39d737202c9b2a395e90850d55117fa7f854efa6967c19b164c0f9f5475de87cd537d9eb1923bd55695c337b88754d6e3072e7d057510000e4605a73a8a9891bca853515fb14926806e5cc02a659230961975ee700ffb7f0b9e0165183296d9d1d901f63f16340065abc5586647a707d87f2fa97c8c3cd1c65b800cf8600b1cd0062ee803e35d7b24ab0330172396b64dddaa29f9d15d6373e205c03c680b9860f347bead6bf722f3b74edbc5ecf4a69cd7f01d66fec65ee12f38ece0ce3d630e9bf9
2	1	60	1	0	1796004660	1796005860	40	\\x019f289201c42800000001000001000001010001000001000001010001000100000100000101000100000100010000ce6b0cdb343c9200c428001201001201001201120013001201001201120013001300120100120112001300120100130012019201c42800000001010101010100000000000000000000000000000000000000000000000000000000000000ce00c94f0c9200c4283131310404044c4c4c0000008080808080800000008080808080808080000000000000808080808092ce000186a0c4946004ee396004ee396004ee39000000000000000000000000a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00ce006949200092c41895d626e80b2e113e95d626e80b2e113e95d626e80b2e113ec4180000000000003e400000000000003e400000000000003e409400c400029208c403020100939237c4060000001b1b1b9208c406000000030303c439cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c0395d626e80b2e110000007895d626e80b2e110000007895d626e80b2e11000000789402ce00017f26cd08b49201c406000000000000
2	2	60	1	0	1796004660	1796005860	40	\\x019f289201c42800000001000001000001010001000001000001010001000100000100000101000100000100010000ce6b0cdb343c9200c428001201001201001201120013001201001201120013001300120100120112001300120100130012019201c42800000001010101010100000000000000000000000000000000000000000000000000000000000000ce00c94f0c9200c4283131310404044c4c4c0000008080808080800000008080808080808080000000000000808080808092ce000186a0c4946004ee396004ee396004ee39000000000000000000000000a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00801a0600801a0600801a0600a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00a0bb0d00c05c1500c05c1500a0bb0d00a0bb0d00a0bb0d00ce006949200092c41895d626e80b2e113e95d626e80b2e113e95d626e80b2e113ec4180000000000003e400000000000003e400000000000003e409400c400049208c403020100939237c4060000001b1b1b9208c406000000030303c439cdcccccccccc8c03cdcccccccccc8c03cdcccccccccc8c0395d626e80b2e110000007895d626e80b2e110000007895d626e80b2e11000000789402ce00017f26cd08b49201c406000000000000
2	3	60	1	0	1796005860	1796005920	1	\\x019f019212c40100ce6b0cdfe4010001ce00d5a93001ce000f42400000c0c0c0c0
2	1	300	1	0	1796000400	1796000700	12	\\x019f0c9201c40c000101010201010301010202ce6b0cca9001009201c40c000101000000000000000000ce045cd60c9200c40c31044c00808000808000008092ce000186a0c42c6004ee3900000000a0bb0d00a0bb0d00801a0600a0bb0d00a0bb0d00801a0600a0bb0d00a0bb0d00a0bb0d00ce006949200092c40895d626e80b2e113ec4080000000000003e409400c400020b939237c402001b9208c4020003c413cdcccccccccc8c0395d626e80b2e11000000789402ce00017f26cd08b49201c4020000
2	2	300	1	0	1796000400	1796000700	12	\\x019f0c9201c40c000101010201010301010202ce6b0cca9001009201c40c000101000000000000000000ce045cd60c9200c40c31044c00808000808000008092ce000186a0c42c6004ee3900000000a0bb0d00a0bb0d00801a0600a0bb0d00a0bb0d00801a0600a0bb0d00a0bb0d00a0bb0d00ce006949200092c40895d626e80b2e113ec4080000000000003e409400c400040b939237c402001b9208c4020003c413cdcccccccccc8c0395d626e80b2e11000000789402ce00017f26cd08b49201c4020000
\.


--
-- Data for Name: chancy_metrics_workers; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_metrics_workers (id, name) FROM stdin;
1	worker-a
2	worker-b
3	root@vm
\.


--
-- Data for Name: chancy_queue_rate_limits; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_queue_rate_limits (queue, window_start, count) FROM stdin;
\.


--
-- Data for Name: chancy_queues; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_queues (name, state, concurrency, tags, executor, executor_options, polling_interval, created_at, rate_limit, rate_limit_window, resume_at, eager_polling) FROM stdin;
\.


--
-- Data for Name: chancy_schema_version; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_schema_version (version_of, version) FROM stdin;
chancy	8
metrics_log	1
workflow	3
\.


--
-- Data for Name: chancy_workers; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_workers (worker_id, tags, queues, last_seen, expires_at) FROM stdin;
\.


--
-- Data for Name: chancy_workflow_steps; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_workflow_steps (id, workflow_id, step_id, job_data, dependencies, job_id, created_at, updated_at) FROM stdin;
\.


--
-- Data for Name: chancy_workflows; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.chancy_workflows (id, name, state, created_at, updated_at) FROM stdin;
\.


--
-- Name: chancy_leader_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_leader_id_seq', 1, false);


--
-- Name: chancy_metrics_pending_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_metrics_pending_id_seq', 6, true);


--
-- Name: chancy_metrics_series_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_metrics_series_id_seq', 18, true);


--
-- Name: chancy_metrics_set_aside_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_metrics_set_aside_id_seq', 1, false);


--
-- Name: chancy_metrics_workers_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_metrics_workers_id_seq', 3, true);


--
-- Name: chancy_workflow_steps_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.chancy_workflow_steps_id_seq', 1, false);


--
-- Name: chancy_jobs chancy_jobs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_jobs
    ADD CONSTRAINT chancy_jobs_pkey PRIMARY KEY (id);


--
-- Name: chancy_leader chancy_leader_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_leader
    ADD CONSTRAINT chancy_leader_pkey PRIMARY KEY (id);


--
-- Name: chancy_leader chancy_leader_worker_id_unique; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_leader
    ADD CONSTRAINT chancy_leader_worker_id_unique UNIQUE (worker_id);


--
-- Name: chancy_metrics_1day chancy_metrics_1day_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_1day
    ADD CONSTRAINT chancy_metrics_1day_pkey PRIMARY KEY (version, series, bucket);


--
-- Name: chancy_metrics_1hour chancy_metrics_1hour_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_1hour
    ADD CONSTRAINT chancy_metrics_1hour_pkey PRIMARY KEY (version, series, bucket);


--
-- Name: chancy_metrics_1min chancy_metrics_1min_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_1min
    ADD CONSTRAINT chancy_metrics_1min_pkey PRIMARY KEY (version, series, bucket);


--
-- Name: chancy_metrics_5min chancy_metrics_5min_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_5min
    ADD CONSTRAINT chancy_metrics_5min_pkey PRIMARY KEY (version, series, bucket);


--
-- Name: chancy_metrics_cache chancy_metrics_cache_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_cache
    ADD CONSTRAINT chancy_metrics_cache_pkey PRIMARY KEY (fold);


--
-- Name: chancy_metrics_days chancy_metrics_days_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_days
    ADD CONSTRAINT chancy_metrics_days_pkey PRIMARY KEY (day);


--
-- Name: chancy_metrics_dead_letters chancy_metrics_dead_letters_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_dead_letters
    ADD CONSTRAINT chancy_metrics_dead_letters_pkey PRIMARY KEY (version, "position", rule);


--
-- Name: chancy_metrics_head chancy_metrics_head_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_head
    ADD CONSTRAINT chancy_metrics_head_pkey PRIMARY KEY (one);


--
-- Name: chancy_metrics_ledger chancy_metrics_ledger_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_ledger
    ADD CONSTRAINT chancy_metrics_ledger_pkey PRIMARY KEY ("position");


--
-- Name: chancy_metrics_ledger chancy_metrics_ledger_producer_sequence_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_ledger
    ADD CONSTRAINT chancy_metrics_ledger_producer_sequence_key UNIQUE (producer, sequence);


--
-- Name: chancy_metrics_log chancy_metrics_log_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_log
    ADD CONSTRAINT chancy_metrics_log_pkey PRIMARY KEY (day, producer, sequence);


--
-- Name: chancy_metrics_log_20261130 chancy_metrics_log_20261130_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_log_20261130
    ADD CONSTRAINT chancy_metrics_log_20261130_pkey PRIMARY KEY (day, producer, sequence);


--
-- Name: chancy_metrics_pending chancy_metrics_pending_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_pending
    ADD CONSTRAINT chancy_metrics_pending_pkey PRIMARY KEY (id);


--
-- Name: chancy_metrics_producers chancy_metrics_producers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_producers
    ADD CONSTRAINT chancy_metrics_producers_pkey PRIMARY KEY (producer);


--
-- Name: chancy_metrics_worker_segments chancy_metrics_segments_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_worker_segments
    ADD CONSTRAINT chancy_metrics_segments_pkey PRIMARY KEY (version, worker, resolution, fold, part);


--
-- Name: chancy_metrics_series chancy_metrics_series_key_kind_unit_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_series
    ADD CONSTRAINT chancy_metrics_series_key_kind_unit_key UNIQUE (key, kind, unit);


--
-- Name: chancy_metrics_series chancy_metrics_series_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_series
    ADD CONSTRAINT chancy_metrics_series_pkey PRIMARY KEY (id);


--
-- Name: chancy_metrics_sessions chancy_metrics_sessions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_sessions
    ADD CONSTRAINT chancy_metrics_sessions_pkey PRIMARY KEY (session);


--
-- Name: chancy_metrics_set_aside chancy_metrics_set_aside_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_set_aside
    ADD CONSTRAINT chancy_metrics_set_aside_pkey PRIMARY KEY (id);


--
-- Name: chancy_metrics_spill chancy_metrics_spill_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_spill
    ADD CONSTRAINT chancy_metrics_spill_pkey PRIMARY KEY (producer, sequence);


--
-- Name: chancy_metrics_summaries chancy_metrics_summaries_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_summaries
    ADD CONSTRAINT chancy_metrics_summaries_pkey PRIMARY KEY (first_position);


--
-- Name: chancy_metrics_totals chancy_metrics_totals_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_totals
    ADD CONSTRAINT chancy_metrics_totals_pkey PRIMARY KEY (version, series, bucket);


--
-- Name: chancy_metrics_versions chancy_metrics_versions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_versions
    ADD CONSTRAINT chancy_metrics_versions_pkey PRIMARY KEY (version);


--
-- Name: chancy_metrics_workers chancy_metrics_workers_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_workers
    ADD CONSTRAINT chancy_metrics_workers_name_key UNIQUE (name);


--
-- Name: chancy_metrics_workers chancy_metrics_workers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_workers
    ADD CONSTRAINT chancy_metrics_workers_pkey PRIMARY KEY (id);


--
-- Name: chancy_queue_rate_limits chancy_queue_rate_limits_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_queue_rate_limits
    ADD CONSTRAINT chancy_queue_rate_limits_pkey PRIMARY KEY (queue);


--
-- Name: chancy_queues chancy_queues_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_queues
    ADD CONSTRAINT chancy_queues_pkey PRIMARY KEY (name);


--
-- Name: chancy_schema_version chancy_schema_version_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_schema_version
    ADD CONSTRAINT chancy_schema_version_pkey PRIMARY KEY (version_of);


--
-- Name: chancy_workers chancy_workers_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_workers
    ADD CONSTRAINT chancy_workers_pkey PRIMARY KEY (worker_id);


--
-- Name: chancy_workflow_steps chancy_workflow_steps_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_workflow_steps
    ADD CONSTRAINT chancy_workflow_steps_pkey PRIMARY KEY (id);


--
-- Name: chancy_workflows chancy_workflows_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_workflows
    ADD CONSTRAINT chancy_workflows_pkey PRIMARY KEY (id);


--
-- Name: chancy_idx_jobs_fetch_prune; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_idx_jobs_fetch_prune ON public.chancy_jobs USING btree (queue, state, attempts, scheduled_at, priority DESC, id DESC) WHERE ((state)::text = ANY ((ARRAY['pending'::character varying, 'retrying'::character varying])::text[]));


--
-- Name: chancy_idx_jobs_queue_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_idx_jobs_queue_state ON public.chancy_jobs USING btree (queue, state);


--
-- Name: chancy_jobs_unique_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX chancy_jobs_unique_key ON public.chancy_jobs USING btree (unique_key) WHERE ((unique_key IS NOT NULL) AND ((state)::text <> ALL ((ARRAY['succeeded'::character varying, 'failed'::character varying])::text[])));


--
-- Name: chancy_metrics_1day_expiry; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_metrics_1day_expiry ON public.chancy_metrics_1day USING btree (((bucket / 60)));


--
-- Name: chancy_metrics_1hour_expiry; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_metrics_1hour_expiry ON public.chancy_metrics_1hour USING btree (((bucket / 60)));


--
-- Name: chancy_metrics_1min_expiry; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_metrics_1min_expiry ON public.chancy_metrics_1min USING btree (((bucket / 60)));


--
-- Name: chancy_metrics_5min_expiry; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_metrics_5min_expiry ON public.chancy_metrics_5min USING btree (((bucket / 60)));


--
-- Name: chancy_metrics_ledger_days; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_metrics_ledger_days ON public.chancy_metrics_ledger USING brin (day) WITH (pages_per_range='16', autosummarize='on');


--
-- Name: chancy_workflow_steps_workflow_id_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_workflow_steps_workflow_id_idx ON public.chancy_workflow_steps USING btree (workflow_id);


--
-- Name: chancy_workflows_active_id_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_workflows_active_id_idx ON public.chancy_workflows USING btree (id) WHERE (state = ANY (ARRAY['pending'::text, 'running'::text]));


--
-- Name: chancy_workflows_state_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX chancy_workflows_state_idx ON public.chancy_workflows USING btree (state);


--
-- Name: chancy_workflows_steps_unique_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX chancy_workflows_steps_unique_idx ON public.chancy_workflow_steps USING btree (workflow_id, step_id);


--
-- Name: chancy_metrics_log_20261130_pkey; Type: INDEX ATTACH; Schema: public; Owner: -
--

ALTER INDEX public.chancy_metrics_log_pkey ATTACH PARTITION public.chancy_metrics_log_20261130_pkey;


--
-- Name: chancy_metrics_ledger refuse_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_change BEFORE UPDATE OR TRUNCATE ON public.chancy_metrics_ledger FOR EACH STATEMENT EXECUTE FUNCTION public.chancy_metrics_refuse_change();


--
-- Name: chancy_metrics_log refuse_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_change BEFORE UPDATE ON public.chancy_metrics_log FOR EACH ROW EXECUTE FUNCTION public.chancy_metrics_refuse_change();


--
-- Name: chancy_metrics_sessions refuse_change; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_change BEFORE UPDATE ON public.chancy_metrics_sessions FOR EACH ROW WHEN (((old.written_by <> CURRENT_USER) AND (current_setting('is_superuser'::text) <> 'on'::text))) EXECUTE FUNCTION public.chancy_metrics_refuse_change('only the role that began a session says how it is', 'insufficient_privilege');


--
-- Name: chancy_metrics_log refuse_delete; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_delete BEFORE DELETE ON public.chancy_metrics_log FOR EACH ROW WHEN ((current_setting('chancy_metrics.abandoning'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.chancy_metrics_refuse_change();


--
-- Name: chancy_metrics_log refuse_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.chancy_metrics_log FOR EACH STATEMENT EXECUTE FUNCTION public.chancy_metrics_refuse_change();


--
-- Name: chancy_metrics_log_20261130 refuse_truncate; Type: TRIGGER; Schema: public; Owner: -
--

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.chancy_metrics_log_20261130 FOR EACH STATEMENT EXECUTE FUNCTION public.chancy_metrics_refuse_change();


--
-- Name: chancy_metrics_dead_letters chancy_metrics_dead_letters_version_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_dead_letters
    ADD CONSTRAINT chancy_metrics_dead_letters_version_fkey FOREIGN KEY (version) REFERENCES public.chancy_metrics_versions(version) ON DELETE CASCADE;


--
-- Name: chancy_metrics_head chancy_metrics_head_live_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_metrics_head
    ADD CONSTRAINT chancy_metrics_head_live_fkey FOREIGN KEY (live) REFERENCES public.chancy_metrics_versions(version);


--
-- Name: chancy_workflow_steps chancy_workflow_steps_workflow_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.chancy_workflow_steps
    ADD CONSTRAINT chancy_workflow_steps_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES public.chancy_workflows(id) ON DELETE CASCADE;


--
-- PostgreSQL database dump complete
--


