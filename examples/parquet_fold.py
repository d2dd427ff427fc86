"""The path past one database: the rollups made of exported events, by DuckDB, without PostgreSQL.

    chancy-metrics --app myapp.chancy audit events --after 0 --parquet events
    python examples/parquet_fold.py events rollups.parquet

The same command again adds what is new to the folder; several clusters can export into folders of one parent, and the
pattern `parent/*` folds them together. A row is a bucket of a series: where worker is null the row of all workers that
`metrics_1min` ... `metrics_1day` have, else the point of one that `get_metrics(worker_id=...)` reads. Against these:

- count, min, max, last and the sums of counted job updates and of durations are equal, to the last bit;
- sums of custom values are the product's up to float64 rounding: it adds exactly, `fsum` compensates;
- quantiles, keys past 1,024 bytes and the metrics of your own rules are not made.

It needs duckdb (`pip install duckdb`) and folds what is larger than memory: it spills into `.tmp` where it runs.
"""

from __future__ import annotations

import sys

import duckdb

#: What each event adds to which series: job updates as `projections/rules/built_in.py` has it, the others to theirs.
#: A duration comes as whole microseconds, which add up exactly; its seconds are the same float64 again.
OBSERVED = """
SELECT key, kind, unit, worker, "at", "position", "index", value, NULL::BIGINT AS took_us
FROM events
WHERE kind <> 'job'
UNION ALL
SELECT unnest([
        'job:' || func || ':' || state, 'global:status:' || state,
        'queue:' || queue || ':throughput', 'queue:' || queue || ':' || state
    ]), 'counter', 'count', worker, "at", "position", "index", 1, NULL
FROM events
WHERE kind = 'job'
UNION ALL
SELECT unnest(['job:' || func, 'queue:' || queue]) || ':' || name, 'histogram', 'seconds', worker, "at",
    "position", "index", took_s, round(took_s * 1e6)::BIGINT
FROM (
    SELECT *, 'execution_time' AS name, run_s AS took_s FROM events WHERE kind = 'job'
    UNION ALL
    SELECT *, 'wait_time', wait_s FROM events WHERE kind = 'job'
    UNION ALL
    SELECT *, 'total_time', greatest(epoch_us("at") - epoch_us(
        CASE WHEN attempt > 1 THEN created_at ELSE greatest(created_at, scheduled_at) END), 0) / 1e6
    FROM events
    WHERE kind = 'job' AND state = 'succeeded' AND completed_at IS NOT NULL
)
WHERE took_s IS NOT NULL
UNION ALL
SELECT 'job:' || func || ':attempts', 'histogram', 'attempts', worker, "at",
    "position", "index", attempt, NULL
FROM events
WHERE kind = 'job' AND state IN ('succeeded', 'failed')
"""

#: Of each worker by minutes, then the coarser resolutions from those. The latest gauge is the one with the greatest
#: (time, position in the ledger, index in its batch).
ROLLUPS = """
WITH observed AS ({observed}),
minutes AS MATERIALIZED (
    SELECT key, kind, unit, worker, epoch_us("at") // 60000000 * 60 AS bucket,
        count(*) AS count, max(epoch_us("at")) AS last_us, sum(took_us) AS sum_us,
        fsum(value) FILTER (WHERE took_us IS NULL) AS sum, min(value) AS min, max(value) AS max,
        max({{'at': epoch_us("at"), 'position': "position", 'index': "index", 'value': value}})
            FILTER (WHERE kind = 'gauge') AS last
    FROM observed
    GROUP BY ALL
),
resolutions (resolution, width) AS (VALUES ('1min', 60), ('5min', 300), ('1hour', 3600), ('1day', 86400))
SELECT resolution, worker, key, kind, unit, bucket // width * width AS bucket,
    sum(count)::BIGINT AS count, max(last_us) AS last_us,
    coalesce(sum(sum_us) / 1e6, 0) + coalesce(fsum(sum), 0) AS sum, min(min) AS min, max(max) AS max,
    max(last).value AS last
FROM minutes, resolutions
GROUP BY GROUPING SETS (
    (resolution, width, key, kind, unit, bucket // width, worker),
    (resolution, width, key, kind, unit, bucket // width)
)
"""


def fold(database: duckdb.DuckDBPyConnection, folder: str) -> duckdb.DuckDBPyRelation:
    """Return the rollups of the events in *folder*, as exported; nothing is computed until they are read."""
    database.read_parquet(f"{folder}/day=*/*.parquet", hive_partitioning=True).create_view("events", replace=True)
    return database.sql(ROLLUPS.format(observed=OBSERVED))


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: parquet_fold.py FOLDER ROLLUPS.parquet")
    folder, target = sys.argv[1:]
    with duckdb.connect() as database:
        fold(database, folder).write_parquet(target)
        print(database.sql(f"SELECT resolution, count(*) AS rows FROM '{target}' GROUP BY ALL ORDER BY rows DESC"))


if __name__ == "__main__":
    main()
