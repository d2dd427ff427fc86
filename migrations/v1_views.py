"""Create the views over the rollups, and the functions that dashboards and scalers call: a part of v1."""

from __future__ import annotations

from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow

from chancy_metrics.events import schema
from chancy_metrics.events.row_bounds import POINT_IN_BOUNDS

_STATES = "pending|running|failed|retrying|succeeded"
_DEPTHS = "pending|running|retrying|scheduled"
_TIMES = "execution_time|wait_time|total_time"
_SIZES = "total_size_bytes|table_size_bytes|index_size_bytes"
#: Kind, unit, subject and key of this plugin's own series, and what stands for the parts of the key; any name does.
_OWN: tuple[tuple[str, str, str, str, dict[str, str]], ...] = (
    ("counter", "count", "job", "job:{name}:{state}", {"state": _STATES}),
    ("counter", "count", "queue", "queue:{name}:{state}", {"state": _STATES}),
    ("counter", "count", "queue", "queue:{name}:{measure}", {"measure": "throughput"}),
    ("counter", "count", "global", "global:status:{state}", {"state": ".*"}),
    ("histogram", "seconds", "job", "job:{name}:{measure}", {"measure": _TIMES}),
    ("histogram", "seconds", "queue", "queue:{name}:{measure}", {"measure": _TIMES}),
    ("histogram", "attempts", "job", "job:{name}:{measure}", {"measure": "attempts"}),
    ("gauge", "jobs", "queue", "queue:{name}:{measure}:{state}", {"measure": "depth", "state": _DEPTHS}),
    ("gauge", "seconds", "queue", "queue:{name}:{measure}", {"measure": "oldest_wait_seconds"}),
    ("gauge", "workers", "workers", "workers:{measure}", {"measure": "active"}),
    ("gauge", "slots", "workers", "workers:{measure}", {"measure": "slots_used|slots"}),
    ("gauge", "bytes", "table", "table:{name}:{measure}", {"measure": _SIZES}),
    ("gauge", "count", "pipeline", "metrics:{measure}", {"measure": "drift"}),
)

_KEYS = """
CREATE VIEW {keys} AS
SELECT id, key, kind, unit, subject, name,
    CASE subject WHEN 'job' THEN name END AS func,
    CASE subject WHEN 'queue' THEN name END AS queue,
    state,
    coalesce(measure, key) AS measure
FROM {series};
"""

_RESOLUTIONS = """
CREATE VIEW {resolutions} AS
SELECT r.resolution, r.width_s, r.kept_from_s
FROM {head} h
JOIN {versions} v
    ON v.version = h.live
CROSS JOIN LATERAL (VALUES {rows}) AS r (resolution, width_s, kept_from_s);
"""

# The time is made of whole seconds and microseconds, so that no rounding moves it. A bound on `bucket` is one of the
# primary key; no index is on `time`, which would double the writes of a fold.
_POINTS = """
CREATE VIEW {points} AS
SELECT to_timestamp(r.bucket) AS time,
    k.key, k.kind, k.unit, k.subject, k.name, k.func, k.queue, k.state, k.measure,
    r.count, r.sum, r.sum / r.count AS avg, r.min, r.max, r.p50, r.p95, r.p99, r.last,
    TIMESTAMPTZ 'epoch' + r.last_us * INTERVAL '1 microsecond' AS last_at,
    r.bucket,
    {width} AS width_s
FROM {head} h
JOIN {versions} v
    ON v.version = h.live
JOIN {rollup} r
    ON r.version = h.live
    AND r.bucket >= v.{horizon}
JOIN {keys} k
    ON k.id = r.series
WHERE r.bucket % {width} = 0
    AND {in_bounds};
"""

# A mark that was taken back has a sum of 0.
_MARKS = """
CREATE VIEW {marks} AS
SELECT m.last_at AS time, substr(m.key, 6) AS text, m.sum::bigint AS count
FROM (
    SELECT DISTINCT ON (last_at, key) last_at, key, sum
    FROM {points}
    WHERE key > 'mark:'
        AND key < 'mark;'
        AND kind = 'counter'
    ORDER BY last_at, key, width_s
) AS m
WHERE m.sum > 0;
"""

_PIPELINE = """
CREATE VIEW {pipeline} AS
SELECT h.live AS version,
    v.position,
    coalesce(v.folded_at, v.live_since, v.created_at) AS folded_at,
    greatest(h.position - v.position, 0) + (SELECT count(*) FROM {pending}) + (SELECT count(*) FROM {spill})
        AS waiting_batches,
    coalesce(greatest(extract(epoch FROM clock_timestamp() - w.oldest)::double precision, 0), 0) AS lag_s,
    (SELECT count(*) FROM {dead_letters} d WHERE d.version = h.live AND d.discarded_at IS NULL) AS dead_letters
FROM {head} h
JOIN {versions} v
    ON v.version = h.live
CROSS JOIN LATERAL (
    SELECT min(l.appended_at) AS oldest
    FROM (
        (SELECT day, producer, sequence FROM {pending} ORDER BY id LIMIT 1)
        UNION ALL
        SELECT day, producer, sequence FROM {ledger} WHERE position = v.position + 1
    ) AS b
    JOIN {log} l
        USING (day, producer, sequence)
) AS of_log
CROSS JOIN LATERAL (
    SELECT least(of_log.oldest, (SELECT min(appended_at) FROM {spill})) AS oldest
) AS w;
"""

# plpgsql, whose bodies are read when they are called: Chancy's table may be younger, and may be changed.
_FUNCTIONS = """
CREATE FUNCTION {resolution_for}(since_s bigint, step_s double precision)
RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $fn$
BEGIN
    RETURN coalesce(
        (
            SELECT resolution
            FROM {resolutions}
            WHERE width_s >= step_s
                AND kept_from_s < since_s + width_s
            ORDER BY width_s
            LIMIT 1
        ),
        {coarsest}
    );
END
$fn$;

-- Chancy's index has the attempts before the time, so each number of attempts that there is has a range of its own.
CREATE FUNCTION {due}(of_queue text, OUT jobs bigint, OUT wait_s double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $fn$
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
            FROM {jobs} j
            WHERE j.queue = of_queue
                AND j.state = _state
                AND j.state IN ('pending', 'retrying')
                AND j.attempts > _attempts;
            EXIT WHEN _attempts IS NULL;
            _first := least(_first, (
                SELECT min(j.scheduled_at)
                FROM {jobs} j
                WHERE j.queue = of_queue
                    AND j.state = _state
                    AND j.state IN ('pending', 'retrying')
                    AND j.attempts = _attempts
            ));
            jobs := jobs + (
                SELECT count(*)
                FROM (
                    SELECT
                    FROM {jobs} j
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
$fn$;
"""


def key_columns() -> sql.Composed:
    """Return the columns of the series that hold the parts of its key, made when it is inserted."""
    return sql.SQL(", ").join(
        sql.SQL("{} text GENERATED ALWAYS AS ({}) STORED").format(sql.Identifier(part), sql.SQL(_part(part)))
        for part in ("subject", "name", "measure", "state")
    )


def _part(part: str) -> str:
    """Return the expression of one part of a key: `subject`, or a group of the pattern that the key matches.

    All parts have the same patterns: PostgreSQL keeps 32 compiled ones.
    """
    cases = []
    for kind, unit, subject, key, groups in _OWN:
        there = [name for name in ("name", "measure", "state") if f"{{{name}}}" in key]
        pattern = "'^" + key.format(**{name: f"({groups.get(name, '.*')})" for name in there}) + "$'"
        if part == "subject":
            value = f"'{subject}'"
        elif part in there:
            value = f"(regexp_match(key, {pattern}))[{there.index(part) + 1}]"
        else:
            value = "'updates'" if part == "measure" else "NULL"
        cases.append(f"WHEN kind = '{kind}' AND unit = '{unit}' AND key ~ {pattern} THEN {value}")
    otherwise = "'custom'" if part == "subject" else "NULL"
    return f"CASE {' '.join(cases)} ELSE {otherwise} END"


async def create(cursor: AsyncCursor[DictRow], names: schema.Tables, identifiers: dict[str, sql.Identifier]) -> None:
    """Create the views and functions; the tables are there."""
    views = {name: names.view(name) for name in ("keys", "resolutions", "points", "marks", "pipeline")}
    horizons = {resolution: sql.Identifier(f"horizon_{resolution}") for resolution in schema.RESOLUTIONS}
    points = {resolution: names.view(f"points_{resolution}") for resolution in schema.RESOLUTIONS}
    rows = sql.SQL(", ").join(
        sql.SQL("({}, {}, v.{})").format(resolution, width, horizons[resolution])
        for resolution, width in schema.RESOLUTIONS.items()
    )
    statements = [
        sql.SQL(_KEYS).format(**identifiers, **views),
        sql.SQL(_RESOLUTIONS).format(rows=rows, **identifiers, **views),
        *(
            sql.SQL(_POINTS).format(
                **identifiers | views | {"points": points[resolution]},
                rollup=names.rollup(resolution),
                horizon=horizons[resolution],
                width=width,
                in_bounds=sql.SQL(POINT_IN_BOUNDS),
            )
            for resolution, width in schema.RESOLUTIONS.items()
        ),
        sql.SQL("CREATE VIEW {} AS {};").format(
            views["points"],
            sql.SQL(" UNION ALL ").join(
                sql.SQL("SELECT {} AS resolution, p.* FROM {} p").format(resolution, points[resolution])
                for resolution in schema.RESOLUTIONS
            ),
        ),
        sql.SQL(_MARKS).format(**views),
        sql.SQL(_PIPELINE).format(**identifiers, **views),
        sql.SQL(_FUNCTIONS).format(
            jobs=sql.Identifier(f"{names.prefix}jobs"),
            coarsest=list(schema.RESOLUTIONS)[-1],
            **identifiers,
            **views,
        ),
    ]
    await cursor.execute(sql.SQL("").join(statements))


async def drop(cursor: AsyncCursor[DictRow], names: schema.Tables) -> None:
    """Drop the views and functions."""
    for function in (names.resolution_for, names.due):
        await cursor.execute(sql.SQL("DROP FUNCTION IF EXISTS {}").format(function))
    for view in reversed(schema.VIEWS):
        await cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(names.view(view.removeprefix("metrics_"))))
