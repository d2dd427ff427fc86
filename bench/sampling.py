"""Sample sizes of tables, the projector's lag and CPU times of processes.

CPU times are read from Linux's /proc, on the machine that the server runs on.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.projections.versions.lag import live_lag

_TABLES = tables_for("chancy_")
_TABLE_SIZES = r"""
SELECT regexp_replace(relname, '^chancy_metrics_(.*?)(_\d{8})?$', '\1'), sum(n_live_tup)::bigint,
    sum(n_dead_tup)::bigint, sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint,
    sum(autovacuum_count)::bigint, sum(pg_total_relation_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint
FROM pg_stat_user_tables
WHERE relname ~ '^chancy_metrics_'
GROUP BY 1
"""
_POSITIONS = """
SELECT h.position, v.position
FROM chancy_metrics_head h
JOIN chancy_metrics_versions v
    ON v.version = h.live
"""
_BACKENDS = """
SELECT pid, CASE WHEN application_name = ANY(%(names)s) THEN application_name ELSE backend_type END
FROM pg_stat_activity
"""
_TICKS = os.sysconf("SC_CLK_TCK")


class Table(NamedTuple):
    """A table, its partitions added up; rows are the statistics' estimates."""

    live: int
    dead: int
    inserted: int
    updated: int
    hot: int
    vacuums: int
    total_bytes: int
    index_bytes: int


def add_up(tables: Iterable[Table]) -> Table:
    return Table(*map(sum, zip(*tables, strict=True)))


class Sample(NamedTuple):
    """One look.

    Attributes:
        waiting_s: Age of the oldest committed batch that is not folded.
        silent_s: Seconds since the last fold was stored.
        look_s: How long it took to find that out, which reads the pending table from its beginning.
        ledger: Rows of the ledger.
        unfolded: How many of them the live version lacks.
        cpu_s: CPU time since the look before, by who spent it; "machine" is that of everybody.
    """

    at_s: float
    phase: str
    waiting_s: float
    silent_s: float
    look_s: float
    ledger: int
    unfolded: int
    tables: dict[str, Table]
    cpu_s: dict[str, float]


class Sampler:
    """Looks at the database and at processes.

    Args:
        processes: Names of processes by their ids.
        backends: What to call the backends of connections with these application names.
    """

    def __init__(self, connection: Connection, processes: Mapping[int, str], backends: Mapping[str, str]) -> None:
        self._connection = connection
        self._processes = processes
        self._backends = backends
        self._spent: dict[int, float] = {}
        self._machine = _machine_s()

    async def look(self, phase: str) -> Sample:
        async with short_transaction(self._connection, index_only=True) as cursor:
            started = time.monotonic()
            lag = await live_lag(cursor, _TABLES)
            look_s = time.monotonic() - started
        found = await (await self._connection.execute(_TABLE_SIZES.encode())).fetchall()
        positions = await (await self._connection.execute(_POSITIONS)).fetchone()
        assert positions is not None
        return Sample(
            started, phase, *lag, look_s, positions[0], positions[0] - positions[1],
            {name: Table(*figures) for name, *figures in found}, await self._cpu(),
        )  # fmt: skip

    async def _cpu(self) -> dict[str, float]:
        cursor = await self._connection.execute(_BACKENDS, {"names": list(self._backends)})
        who = {pid: self._backends.get(name, f"PostgreSQL {name}") for pid, name in await cursor.fetchall()}
        spent = {pid: _cpu_s(pid) for pid in who | dict(self._processes)}
        since: defaultdict[str, float] = defaultdict(float)
        for pid, name in (who | dict(self._processes)).items():
            # A process that was not there at the look before has spent all of its time since.
            since[name] += spent[pid] - self._spent.get(pid, 0 if self._spent else spent[pid])
        machine = _machine_s()
        since["machine"] = machine - self._machine
        self._spent, self._machine = spent, machine
        return dict(since)


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, those of its ended children left out; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_s() -> float:
    """CPU seconds that all cores together were not idle."""
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + soft) / _TICKS
