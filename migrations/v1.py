"""Create the tables, the triggers that guard them, and the function that appends to the log or the spill table."""

from __future__ import annotations

from typing import LiteralString

from chancy.migrate import Migration, Migrator
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow

from chancy_metrics.events import row_bounds, schema
from chancy_metrics.migrations import v1_views

# Rows of these tables live for seconds: vacuum often, by count rather than by share, and never
# truncate, which takes a lock that appends would wait for.
_SHORT_LIVED = sql.SQL(
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, "
    "autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000, vacuum_truncate = off"
)

_UP = """
CREATE FUNCTION {refuse_change}() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION '% of % refused: %', TG_OP, TG_TABLE_NAME,
            coalesce(TG_ARGV[0], 'the metrics log and its ledger are append-only')
        USING ERRCODE = coalesce(TG_ARGV[1], 'object_not_in_prerequisite_state'),
              HINT = CASE WHEN TG_ARGV[0] IS NULL THEN
                  'Correct a number by appending another event; days past log_retention leave by '
                  '`chancy-metrics prune`, everything by `chancy misc migrate --plugin Metrics -t 0`.' ELSE '' END;
END
$fn$;

CREATE FUNCTION {refuse_append}() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION 'day % of the metrics log is closed', NEW.day
        USING ERRCODE = 'CM001',
              HINT = 'It is about to be pruned; append under a later day.';
END
$fn$;

CREATE TABLE {log} (
    day date NOT NULL, -- its partition bounds it
    producer uuid NOT NULL,
    sequence {batch_sequence} NOT NULL,
    worker {batch_worker} NOT NULL,
    first_us {batch_us},
    last_us {batch_us},
    appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    events {batch_events} NOT NULL,
    closes boolean NOT NULL,
    codec {batch_codec} NOT NULL,
    payload {batch_payload} NOT NULL,
    sha256 {batch_sha256} NOT NULL,
    PRIMARY KEY (day, producer, sequence),
    CONSTRAINT in_order CHECK (first_us <= last_us)
) PARTITION BY RANGE (day);
-- Compression makes an append two to four times slower, and packed columns do not shrink.
ALTER TABLE {log} ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TRIGGER refuse_change BEFORE UPDATE ON {log}
    FOR EACH ROW EXECUTE FUNCTION {refuse_change}();
-- Abandoning an import deletes its batches; it sets this.
CREATE TRIGGER refuse_delete BEFORE DELETE ON {log}
    FOR EACH ROW WHEN (current_setting('chancy_metrics.abandoning', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION {refuse_change}();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {log}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuse_change}();

CREATE TABLE {pending} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day {batch_day} NOT NULL,
    producer uuid NOT NULL,
    sequence {batch_sequence} NOT NULL
) WITH ({short_lived});

-- Rows of pending without a batch. The day is text: a reader may be unable to hold it as a date.
CREATE TABLE {set_aside} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day text NOT NULL,
    producer uuid NOT NULL,
    sequence bigint NOT NULL,
    why text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Batches that the log could not take. Not partitioned, so what locks the log does not lock it.
CREATE TABLE {spill} (
    day {batch_day} NOT NULL,
    producer uuid NOT NULL,
    sequence {batch_sequence} NOT NULL,
    worker {batch_worker} NOT NULL,
    first_us {batch_us},
    last_us {batch_us},
    appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    events {batch_events} NOT NULL,
    closes boolean NOT NULL,
    codec {batch_codec} NOT NULL,
    payload {batch_payload} NOT NULL,
    sha256 {batch_sha256} NOT NULL,
    PRIMARY KEY (producer, sequence),
    CONSTRAINT in_order CHECK (first_us <= last_us)
) WITH ({short_lived});
ALTER TABLE {spill} ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE {ledger} (
    position bigint PRIMARY KEY,
    day date NOT NULL,
    bytes integer NOT NULL CHECK (bytes >= 0), -- of the payload; here, where it fills a gap that alignment leaves
    producer uuid NOT NULL,
    sequence bigint NOT NULL,
    events integer NOT NULL,
    chain bytea NOT NULL,
    UNIQUE (producer, sequence)
);
-- Clean-up deletes the oldest rows; everything else is refused.
CREATE TRIGGER refuse_change BEFORE UPDATE OR TRUNCATE ON {ledger}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuse_change}();
-- For retention. Positions are nearly sorted by day, so a small BRIN index is enough.
CREATE INDEX {ledger_days} ON {ledger} USING brin (day) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE {producers} (
    producer uuid PRIMARY KEY,
    worker text NOT NULL,
    last_sequence bigint NOT NULL,
    closed boolean NOT NULL,
    holes bigint NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50, {short_lived});

CREATE TABLE {sessions} (
    session uuid PRIMARY KEY,
    worker text NOT NULL,
    producers uuid[] NOT NULL,
    append_interval double precision NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    held jsonb,
    fold_error text,
    written_by name NOT NULL DEFAULT current_user,
    CONSTRAINT session_in_bounds CHECK ({session_in_bounds})
) WITH (fillfactor = 50, {short_lived});
-- Only the role that began a session may say that it is alive, or how it ended.
CREATE TRIGGER refuse_change BEFORE UPDATE ON {sessions}
    FOR EACH ROW WHEN (OLD.written_by <> current_user AND current_setting('is_superuser') <> 'on')
    EXECUTE FUNCTION {refuse_change}('only the role that began a session says how it is', 'insufficient_privilege');

CREATE TABLE {days} (
    day date PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('attached', 'closed', 'absorbed', 'gone')),
    changed_at timestamptz NOT NULL,
    last_position bigint,
    last_us bigint
);

CREATE TABLE {summaries} (
    first_position bigint PRIMARY KEY,
    last_position bigint NOT NULL,
    day date NOT NULL,
    first_us bigint,
    last_us bigint,
    events bigint NOT NULL,
    format smallint NOT NULL,
    filter bytea,
    digest bytea -- sha256 of all of it: a search leaves out nothing by a row that was damaged
);
-- Not compressed, so that single bytes can be read; random bits do not shrink anyway.
ALTER TABLE {summaries} ALTER COLUMN filter SET STORAGE EXTERNAL;

CREATE TABLE {versions} (
    version integer PRIMARY KEY,
    rules integer NOT NULL,
    user_rules integer NOT NULL,
    rule_names text[] NOT NULL,
    status text NOT NULL CHECK (
        status IN (
            'baseline', 'collecting', 'copying', 'backfilling', 'ready', 'live', 'standby', 'dropped',
            'totals_copying', 'totals_backfilling', 'totals', 'totals_dropped'
        )
    ),
    position bigint NOT NULL,
    folds bigint NOT NULL DEFAULT 0,
    horizon_1min bigint NOT NULL DEFAULT 0,
    horizon_5min bigint NOT NULL DEFAULT 0,
    horizon_1hour bigint NOT NULL DEFAULT 0,
    horizon_1day bigint NOT NULL DEFAULT 0,
    counts jsonb NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    auto_promote boolean NOT NULL DEFAULT true,
    live_since timestamptz,
    replaced integer,
    baseline integer NOT NULL DEFAULT 0, -- the version with the points of pruned days that this one is made from
    archives jsonb, -- of a baseline made from archives: its days, and which are left to fold
    kept_until timestamptz,
    verified jsonb,
    folded_at timestamptz,
    folded_by text,
    folding_since timestamptz,
    fold_events bigint,
    fold_us bigint
) WITH (fillfactor = 20, {short_lived});

CREATE TABLE {head} (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    chain bytea NOT NULL,
    live integer NOT NULL REFERENCES {versions} (version),
    blocked_rules text[] NOT NULL DEFAULT '{{}}'
) WITH (fillfactor = 20, {short_lived});

CREATE TABLE {dead_letters} (
    version integer NOT NULL REFERENCES {versions} (version) ON DELETE CASCADE,
    position bigint NOT NULL,
    rule text NOT NULL DEFAULT '', -- the user's rule that failed on the batch; '' where all of it is left out
    error text NOT NULL,
    events integer,
    first_us bigint,
    last_us bigint,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    discarded_at timestamptz,
    discarded_by text,
    why text,
    PRIMARY KEY (version, position, rule)
);

CREATE TABLE {series} (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('counter', 'gauge', 'histogram')),
    unit text NOT NULL,
    {key_columns},
    UNIQUE (key, kind, unit)
);

CREATE TABLE {workers} (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- The cells of one worker that one fold added (of the baseline: one absorbed day, numbered from 1970 on, below zero),
-- all of one resolution (the width of its buckets, seconds), as bytes; in several parts if they are many.
CREATE TABLE {worker_segments} (
    version integer NOT NULL,
    worker integer NOT NULL,
    resolution integer NOT NULL,
    fold bigint NOT NULL,
    part integer NOT NULL,
    first_s bigint NOT NULL,
    end_s bigint NOT NULL,
    cells integer NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT {segments_key} PRIMARY KEY (version, worker, resolution, fold, part)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.2, vacuum_truncate = off
);
ALTER TABLE {worker_segments} ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE {cache} (
    fold bigint PRIMARY KEY,
    version integer NOT NULL,
    position bigint NOT NULL,
    token uuid NOT NULL,
    points bytea NOT NULL
) WITH ({short_lived});
ALTER TABLE {cache} ALTER COLUMN points SET STORAGE EXTERNAL;

INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by)
VALUES (0, 3, 0, '{{}}', 'baseline', 0, 'migration'), (1, 3, 0, '{{}}', 'live', 0, 'migration');
INSERT INTO {head} (position, chain, live) VALUES (0, '', 1);
"""

_COLUMNS: LiteralString = "day, producer, sequence, worker, first_us, last_us, events, closes, codec, payload, sha256"
_VALUES: LiteralString = (
    "_day, _producer, _sequence, _worker, _first_us, _last_us, _events, _closes, _codec, _payload, _sha256"
)
# Whatever happens in a block with an exception handler is undone as at a savepoint, so the caller's transaction stays
# whole. SET restores the caller's own lock_timeout at the end of the call; a lock wait reads it when it begins.
# plpgsql prepares each expression again in each transaction, so what is usual takes few of them.
_APPEND = """
CREATE FUNCTION {append}(
    _lock_wait_ms integer,
    _earlier bytea,
    _day date,
    _producer uuid,
    _sequence bigint,
    _worker text,
    _first_us bigint,
    _last_us bigint,
    _events integer,
    _closes boolean,
    _codec smallint,
    _payload bytea,
    _sha256 bytea
) RETURNS text LANGUAGE plpgsql SET lock_timeout = 0 AS $fn$
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
                SELECT array_agg(day) INTO _days_there FROM {pending} WHERE {is_this};
                _is_there := EXISTS (SELECT FROM {spill} WHERE {is_this})
                    OR _days_there IS NOT NULL
                    OR EXISTS (SELECT FROM {ledger} WHERE {is_this});
            EXCEPTION WHEN OTHERS OR query_canceled THEN
                _is_there := EXISTS (SELECT FROM {spill} WHERE {is_this})
                    OR EXISTS (
                        SELECT FROM {log}
                        WHERE day IN (_day, (clock_timestamp() AT TIME ZONE 'UTC')::date)
                            AND {is_this}
                    )
                    OR EXISTS (SELECT FROM {ledger} WHERE {is_this});
            END;
            IF _is_there THEN
                SELECT array_cat(_days_there, array_agg(day)) INTO _days_there FROM {ledger} WHERE {is_this};
                SELECT array_agg(t.sha256) INTO _there
                FROM (
                    SELECT sha256 FROM {spill} WHERE {is_this}
                    UNION ALL
                    SELECT sha256
                    FROM {log}
                    WHERE day = ANY(_days_there || ARRAY[_day, (clock_timestamp() AT TIME ZONE 'UTC')::date])
                        AND {is_this}
                ) AS t;
                IF _there IS NULL AND NOT EXISTS (SELECT FROM {ledger} WHERE {is_this}) THEN
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
            RETURN concat_ws(' ', _state, {now_us}, _error_code, _error_text);
        END IF;
    END IF;

    BEGIN
        _limit := set_config('lock_timeout', _lock_wait_ms::text, true);
        INSERT INTO {log} ({columns})
        VALUES ({values})
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO {pending} (day, producer, sequence) VALUES (_day, _producer, _sequence);
            IF FOUND THEN
                RETURN concat_ws(' ', 'appended', {now_us});
            END IF; -- without that row it would never get a position
            RAISE EXCEPTION 'a rule or a trigger keeps batches out of the pending table';
        END IF;
        SELECT CASE sha256 WHEN _sha256 THEN 'known' ELSE 'taken' END
        INTO STRICT _state
        FROM {log}
        WHERE day = _day
            AND {is_this};
    EXCEPTION
        WHEN OTHERS OR query_canceled THEN
            -- A batch that this transaction can't see may have this id.
            _state := CASE WHEN _earlier IS NOT NULL AND SQLSTATE = '40001' THEN 'refused' END;
            _error_code := SQLSTATE;
            _error_text := SQLERRM;
    END;
    IF _state IS NOT NULL THEN
        RETURN concat_ws(' ', _state, {now_us}, _error_code, _error_text);
    END IF;

    BEGIN
        _limit := set_config('lock_timeout', least(nullif(_lock_wait_ms, 0), 10)::text, true);
        INSERT INTO {spill} ({columns})
        VALUES ({values})
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            _state := 'spilled';
        ELSE
            SELECT CASE sha256 WHEN _sha256 THEN 'known' ELSE 'taken' END
            INTO STRICT _state
            FROM {spill}
            WHERE {is_this};
        END IF;
    EXCEPTION WHEN OTHERS OR query_canceled THEN
        _state := 'refused';
        _error_text := _error_text || '; nor did the spill table: ' || SQLERRM;
    END;
    RETURN concat_ws(' ', _state, {now_us}, _error_code, _error_text);
END
$fn$;
"""

# A changing column in an index would end HOT updates: the sketch and the totals stay out of both.
_ROLLUP = """
CREATE TABLE {rollup} (
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
    PRIMARY KEY (version, series, bucket)
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2,
    vacuum_truncate = off
);
ALTER TABLE {rollup} ALTER COLUMN sketch SET STORAGE MAIN;
"""
_EXPIRY = """
-- On an expression, so that it serves clean-up alone: where there are no statistics yet the planner would take
-- it for the primary key's probes too, each of which would then read a whole bucket.
CREATE INDEX {expiry} ON {rollup} ((bucket / 60));
"""
# A rollup with one bucket, which begins at 0 and has no end. Its versions are generations of the totals.
_TOTALS = "ALTER TABLE {rollup} ADD COLUMN created_us bigint;"


class MetricsLog(Migration):
    """The first schema."""

    async def up(self, migrator: Migrator, cursor: AsyncCursor[DictRow]) -> None:
        """Create every table; the log's partitions are made by the plugin, which knows the day."""
        names = schema.tables_for(migrator.prefix)
        ledger_days = sql.Identifier(f"{names.prefix}metrics_ledger_days")
        segments_key = sql.Identifier(f"{names.prefix}metrics_segments_pkey")
        domains = _domains(names)
        for name, (base, check) in row_bounds.DOMAINS.items():
            await cursor.execute(
                sql.SQL("CREATE DOMAIN {domain} AS {base} CHECK ({check})").format(
                    domain=domains[name], base=sql.SQL(base), check=sql.SQL(check)
                )
            )
        await cursor.execute(
            sql.SQL(_UP).format(
                short_lived=_SHORT_LIVED,
                ledger_days=ledger_days,
                segments_key=segments_key,
                key_columns=v1_views.key_columns(),
                session_in_bounds=sql.SQL(row_bounds.SESSION_IN_BOUNDS),
                **{name.removeprefix("metrics_"): domain for name, domain in domains.items()},
                **_identifiers(names),
            )
        )
        await cursor.execute(
            sql.SQL(_APPEND).format(
                columns=sql.SQL(_COLUMNS),
                values=sql.SQL(_VALUES),
                is_this=sql.SQL("producer = _producer AND sequence = _sequence"),
                now_us=sql.SQL("(date_part('epoch', clock_timestamp()) * 1000000)::bigint"),
                **_identifiers(names),
            )
        )
        for resolution in schema.RESOLUTIONS:
            rollup = names.rollup(resolution)
            expiry = sql.Identifier(f"{names.prefix}metrics_{resolution}_expiry")
            await cursor.execute(sql.SQL(_ROLLUP + _EXPIRY).format(rollup=rollup, expiry=expiry))
        await cursor.execute(sql.SQL(_ROLLUP + _TOTALS).format(rollup=names.totals))
        await v1_views.create(cursor, names, _identifiers(names))

    async def down(self, migrator: Migrator, cursor: AsyncCursor[DictRow]) -> None:
        """Drop everything of ours, the raw events too."""
        names = schema.tables_for(migrator.prefix)
        await v1_views.drop(cursor, names)
        await cursor.execute(sql.SQL("SELECT day FROM {days} WHERE state = 'absorbed'").format(days=names.days))
        for row in await cursor.fetchall():  # its partition may be detached already, and would stay
            await cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(names.partition(row["day"])))
        for table in reversed(schema.TABLES):
            if table not in ("metrics_head", "metrics_versions"):
                await cursor.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(f"{names.prefix}{table}"))
                )
        await cursor.execute(
            sql.SQL(
                "DROP TABLE IF EXISTS {head}; DROP TABLE IF EXISTS {versions}; DROP FUNCTION {refuse_change}(); "
                "DROP FUNCTION {refuse_append}(); DROP FUNCTION IF EXISTS {append}"
            ).format(**_identifiers(names))
        )
        for domain in _domains(names).values():
            await cursor.execute(sql.SQL("DROP DOMAIN IF EXISTS {}").format(domain))


def _identifiers(tables: schema.Tables) -> dict[str, sql.Identifier]:
    return {name: value for name, value in tables._asdict().items() if isinstance(value, sql.Identifier)}


def _domains(tables: schema.Tables) -> dict[str, sql.Identifier]:
    return {name: sql.Identifier(f"{tables.prefix}{name}") for name in row_bounds.DOMAINS}
