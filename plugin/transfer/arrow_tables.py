"""Make Arrow tables of the columns of events, without an object of each event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer.json_lines import uuid_texts
from chancy_metrics.projections.search.columns import EventColumns

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ImportError as error:
    raise MetricsLogError(
        "Parquet files are written by pyarrow, which is not installed: pip install 'chancy-metrics[parquet]'"
    ) from error

#: pyarrow too: where it is missing, this module says so.
__all__ = ["IN_MEMORY", "SCHEMA", "SHARED", "as_table", "pa", "pq"]

_TIME = pa.timestamp("us", tz="UTC")
#: What readers find, in types that all of them have; the folders' names add `day`.
SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("producer", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("unit", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("job_id", pa.string()),
        pa.field("func", pa.string()),
        pa.field("queue", pa.string()),
        pa.field("state", pa.string()),
        pa.field("attempt", pa.int64()),
        pa.field("error", pa.string()),
        pa.field("created_at", _TIME),
        pa.field("scheduled_at", _TIME),
        pa.field("started_at", _TIME),
        pa.field("completed_at", _TIME),
        pa.field("run_s", pa.float64()),
        pa.field("wait_s", pa.float64()),
        pa.field("meta", pa.string()),
    ]
)
#: Columns with few values: in memory and in the files they are numbers of texts that are there once.
SHARED = ("kind", "worker", "producer", "key", "unit", "func", "queue", "state", "error")
IN_MEMORY = pa.schema(
    [field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in SHARED else field for field in SCHEMA]
)


def as_table(columns: EventColumns) -> pa.Table:
    """Return events as a table of `SCHEMA`, with dictionaries of `SHARED`; a value that an event lacks is null."""
    updates, observations = _Rows.of(columns.is_job), _Rows.of(~columns.is_job)
    every = _Rows(np.ones_like(columns.is_job), None)
    batches, combos, series = columns.batches, columns.combos, columns.series
    of_batch, of_combo, of_series = (
        rows.numbered(numbers, len(names))
        for rows, numbers, names in (
            (every, columns.batch, batches),
            (updates, columns.combo, combos),
            (observations, columns.run, series),
        )
    )
    kind = np.where(columns.is_job, 0, columns.run + 1)
    return pa.table(
        {
            "position": every.column(pa.int64(), of_batch.each([one.position for one in batches])),
            "index": every.column(pa.int64(), columns.indexes),
            "at": every.column(_TIME, columns.at_us),
            "kind": every.numbered(kind, 1 + len(series)).texts(["job", *(one.kind for one in series)]),
            "worker": of_batch.texts([one.worker for one in batches]),
            "producer": of_batch.texts([str(one.producer) for one in batches]),
            "key": of_series.texts([one.key for one in series]),
            "unit": of_series.texts([one.unit for one in series]),
            "value": observations.column(pa.float64(), columns.values),
            "job_id": updates.column(pa.string(), uuid_texts(columns.ids.tobytes()), width=36),
            "func": of_combo.texts([one.func for one in combos]),
            "queue": of_combo.texts([one.queue for one in combos]),
            "state": of_combo.texts([one.state for one in combos]),
            "attempt": updates.column(pa.int64(), of_combo.each([one.attempt for one in combos])),
            "error": of_combo.texts([one.error or None for one in combos]),
            "created_at": updates.column(_TIME, columns.created_us),
            "scheduled_at": updates.column(_TIME, columns.scheduled_us),
            "started_at": _Rows.of(columns.has_started).column(_TIME, columns.started_us),
            "completed_at": _Rows.of(columns.has_completed).column(_TIME, columns.completed_us),
            "run_s": _Rows.of(columns.has_run).column(pa.float64(), columns.run_s),
            "wait_s": _Rows.of(columns.has_wait).column(pa.float64(), columns.wait_s),
            "meta": _meta(columns),
        },
        schema=IN_MEMORY,
    )


class _Rows(NamedTuple):
    """The rows of a table that have a value.

    Attributes:
        valid: One bit a row, as Arrow wants it; None where all have one.
    """

    has: NDArray[np.bool_]
    valid: pa.Buffer | None

    @classmethod
    def of(cls, has: NDArray[np.bool_]) -> _Rows:
        return cls(has, None if has.all() else pa.py_buffer(np.packbits(has, bitorder="little")))

    def column(self, kind: pa.DataType, values: NDArray[Any], *, width: int = 0) -> pa.Array:
        """Return a column of *values*, which are not copied; or of texts of *width* characters each."""
        buffers = [self.valid, pa.py_buffer(np.ascontiguousarray(values))]
        if width:
            buffers.insert(1, pa.py_buffer(np.arange(0, width * len(self.has) + 1, width, dtype=np.int32)))
        return pa.Array.from_buffers(kind, len(self.has), buffers)

    def numbered(self, numbers: NDArray[np.int64], names: int) -> _Numbered:
        """Say which of so many names each row has."""
        used = np.bincount(numbers if self.valid is None else numbers[self.has], minlength=names)
        return _Numbered(self, numbers, np.flatnonzero(used).tolist())


class _Numbered(NamedTuple):
    """Rows that share values by *numbers*, of which these are *used*."""

    rows: _Rows
    numbers: NDArray[np.int64]
    used: list[int]

    def each(self, values: Sequence[int]) -> NDArray[np.int64]:
        """Return the value of each row, of a number each; zeros where there are none."""
        return np.array(values or [0], np.int64)[self.numbers]

    def texts(self, texts: Sequence[str | None]) -> pa.DictionaryArray:
        """Return the text of each row, of a text a number; each that is used is there once."""
        found: defaultdict[str, int] = defaultdict()
        found.default_factory = found.__len__
        places = [-1 if (text := texts[number]) is None else found[text] for number in self.used]
        place_of = np.full(max(1, len(texts)), -1, np.int32)
        place_of[self.used] = places
        indices, rows = place_of[self.numbers], self.rows
        if -1 in places:
            rows = _Rows.of(rows.has & (indices >= 0))
        return pa.DictionaryArray.from_arrays(rows.column(pa.int32(), indices), pa.array(list(found), pa.string()))


def _meta(columns: EventColumns) -> pa.Array:
    if not columns.meta:
        return pa.nulls(len(columns.batch), pa.string())
    texts: list[str | None] = [None] * len(columns.batch)
    for row, meta in columns.meta.items():
        texts[row] = json_line(meta) if meta else None
    return pa.array(texts, pa.string())
