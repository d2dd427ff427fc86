"""Write events as Parquet files, a folder a day; each file is complete or absent, and a later run appends new ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import msgspec

from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged, MetricsLogError
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer.cursor_file import parse_cursor
from chancy_metrics.plugin.transfer.files import create_anew, lock_folder, read_small, replace, replace_text, sync_file
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ImportError as error:
    raise MetricsLogError(
        "Parquet files are written by pyarrow, which is not installed: pip install 'chancy-metrics[parquet]'"
    ) from error

#: Rows of a row group, and events converted to columns at once.
GROUP_ROWS = 50_000
COLUMN_ROWS = 1_000
#: Events and days after which the files are completed and the cursor is stored; a kill costs at most this work.
PART_EVENTS = 1_000_000
PART_DAYS = 16
#: Parquet readers ignore names that start with an underscore.
_STATE = "_cursor.json"

_TIME = pa.timestamp("us", tz="UTC")
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


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query whose events a folder holds, and the cursor up to which it holds them."""

    query: dict[str, str | int | list[str] | dict[str, int | None] | None]
    cursor: str


_decoder = msgspec.json.Decoder(_State)


class _Writer(NamedTuple):
    """The unfinished file of a day."""

    file: BinaryIO
    parquet: pq.ParquetWriter


class ParquetFolder:
    """A folder of Parquet files that pages of events are written to.

    A file gets its name when it is complete; then the cursor is stored. If the process is killed between the two, the
    next run writes the same files again under the same names, so no event is there twice.

    Attributes:
        cursor: Cursor after the last event in the folder, at which the next run resumes.
        events: Number of events this run has written, in this many *files*.
    """

    def __init__(self, folder: Path, query: EventQuery) -> None:
        self._folder = folder
        self._query: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(query))
        self.cursor = query.start_cursor
        self.events = 0
        self.files = 0
        self._part_cursor = self._read_cursor = self.cursor
        self._waiting: dict[date, list[Event]] = {}
        self._tables: dict[date, list[pa.Table]] = {}
        self._rows = self._part_events = 0
        self._writers: dict[date, _Writer] = {}
        self._lock: int | None = None

    def __enter__(self) -> ParquetFolder:
        """Lock the folder and read its cursor.

        Raises:
            AlreadyRunning: Another process writes into it.
            MetricsLogError: It holds the events of another query, or its cursor can't be read or is gone.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self._folder)
        try:
            self.cursor = self._part_cursor = self._read_cursor = self._read_state() or self.cursor
        except MetricsLogError:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for day, writer in self._writers.items():
            writer.parquet.close()
            writer.file.close()
            self._unfinished(day).unlink(missing_ok=True)
        self._writers.clear()
        if self._lock is not None:
            os.close(self._lock)

    def write(self, page: Page) -> None:
        """Write the events of a page; completes the files after `PART_EVENTS` events or `PART_DAYS` days."""
        for event in page.to_events():
            waiting = self._waiting.setdefault(event.at.date(), [])
            waiting.append(event)
            if len(waiting) == COLUMN_ROWS:
                self._make_columns(event.at.date())
        self._read_cursor = page.cursor
        self._rows += page.events
        self._part_events += page.events
        if self._part_events >= PART_EVENTS or len(self._days) > PART_DAYS:
            self.finish()
        elif self._rows >= GROUP_ROWS:
            for day in self._days:
                self._write_group(day)
            self._rows = 0

    def finish(self) -> None:
        """Complete the files and store the cursor."""
        for day in sorted(self._days):
            self._write_group(day)
            writer = self._writers.pop(day)
            writer.parquet.close()
            with writer.file as file:
                sync_file(file)
            replace(self._unfinished(day), self._folder_of(day) / f"{self._name}.parquet")
            self.files += 1
        self.events += self._part_events
        self._rows = self._part_events = 0
        if self._read_cursor != self.cursor or not (self._folder / _STATE).exists():
            state = _State(self._query, str(self._read_cursor))
            replace_text(self._folder / _STATE, json_line(state) + "\n")
        self.cursor = self._part_cursor = self._read_cursor

    @property
    def _days(self) -> set[date]:
        return {*self._waiting, *self._tables, *self._writers}

    def _make_columns(self, day: date) -> None:
        """Convert a day's events to columns, which take a fraction of the memory."""
        self._tables.setdefault(day, []).append(as_table(self._waiting.pop(day)))

    def _write_group(self, day: date) -> None:
        if day in self._waiting:
            self._make_columns(day)
        if day not in self._tables:
            return
        if day not in self._writers:
            self._folder_of(day).mkdir(parents=True, exist_ok=True)
            file = create_anew(self._unfinished(day))
            self._writers[day] = _Writer(file, pq.ParquetWriter(file, SCHEMA, compression="zstd"))
        self._writers[day].parquet.write_table(pa.concat_tables(self._tables.pop(day)))

    def _folder_of(self, day: date) -> Path:
        return self._folder / f"day={day.isoformat()}"

    def _unfinished(self, day: date) -> Path:
        return self._folder_of(day) / f".{self._name}.unfinished"

    @property
    def _name(self) -> str:
        """Name of the files: the cursor after which they begin."""
        index = "end" if self._part_cursor.index is None else f"{self._part_cursor.index:09}"
        return f"part-{self._part_cursor.position:018}-{index}"

    def _check_restarts(self) -> None:
        """Refuse a folder without a cursor that holds other files than those a killed first run would write again."""
        for path in self._folder.glob("day=*/*.parquet"):
            if path.stem != self._name:
                raise MetricsLogError(
                    f"{str(self._folder)!r} has no {_STATE} and holds {path.name}, whose events would be there twice: "
                    "choose another folder"
                )

    def _read_state(self) -> EventCursor | None:
        path = self._folder / _STATE
        try:
            state = decode_as(_decoder, read_small(path), "cursor of a folder")
            cursor = parse_cursor(state.cursor)
        except FileNotFoundError:
            self._check_restarts()
            return None
        except (OSError, ValueError, Damaged) as error:
            raise MetricsLogError(f"{str(path)!r} does not say up to where its folder goes: {error}") from error
        if state.query != self._query:
            raise MetricsLogError(
                f"{str(self._folder)!r} holds the events of another query, {json_line(state.query)}: choose "
                "another folder, or the same options again, to which only what is new is added"
            )
        return cursor


def as_table(events: Sequence[Event]) -> pa.Table:
    """Return events as a table of `SCHEMA`; a value that an event lacks is null."""
    columns = {name: [getattr(event, name) for event in events] for name in SCHEMA.names}
    columns["producer"] = [str(event.producer) for event in events]
    columns["job_id"] = [None if event.job_id is None else str(event.job_id) for event in events]
    columns["error"] = [event.error or None for event in events]
    columns["meta"] = [json_line(event.meta) if event.meta else None for event in events]
    return pa.table(columns, schema=SCHEMA)
