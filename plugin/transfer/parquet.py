"""Write events as Parquet files, a folder a day; each file is complete or absent, and a later run appends new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np

from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged, MetricsLogError
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer.arrow_tables import IN_MEMORY, SHARED, as_table, pa, pq
from chancy_metrics.plugin.transfer.cursor_file import parse_cursor
from chancy_metrics.plugin.transfer.files import create_anew, lock_folder, read_small, replace, replace_text, sync_file
from chancy_metrics.projections.search.columns import EventColumns, Matches, columns_of
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page

#: Rows of a day after which they are written as a row group, at the least: readers share out and skip whole groups.
GROUP_ROWS = 100_000
#: Bytes of all days that wait to be written; past that they are, in smaller groups.
GROUP_BYTES = 24 << 20
#: What a table in memory takes beside its columns, bytes.
_TABLE_BYTES = 20_000
#: Events of a page to write: what they cost beside their number is shared by so many.
PAGE_EVENTS = 10_000
#: Events and days after which the files are completed and the cursor is stored; a kill costs at most this work.
PART_EVENTS = 1_000_000
PART_DAYS = 16
#: Parquet readers ignore names that start with an underscore.
_STATE = "_cursor.json"

_EPOCH = date(1970, 1, 1)
_DAY_US = 86_400_000_000


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

    A thread of its own encodes and compresses one row group while the next events are read and converted.

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
        self._waiting: dict[date, list[pa.Table]] = {}
        self._waiting_bytes = self._part_events = 0
        self._writers: dict[date, _Writer] = {}
        self._thread = ThreadPoolExecutor(1, "parquet")
        self._writing: Future[None] | None = None
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
        self._thread.shutdown()
        for day, writer in self._writers.items():
            with suppress(OSError):  # the file is removed
                writer.parquet.close()
                writer.file.close()
            self._unfinished(day).unlink(missing_ok=True)
        self._writers.clear()
        if self._lock is not None:
            os.close(self._lock)

    def write(self, page: Page) -> None:
        """Write the events of a page; completes the files after `PART_EVENTS` events or `PART_DAYS` days."""
        for day, columns in _by_day(page.found):
            table = as_table(columns)
            self._waiting.setdefault(day, []).append(table)
            self._waiting_bytes += table.nbytes + _TABLE_BYTES
        self._read_cursor = page.cursor
        self._part_events += page.events
        if self._part_events >= PART_EVENTS or len(self._days) > PART_DAYS:
            self.finish()
            return
        is_much = self._waiting_bytes >= GROUP_BYTES
        for day, tables in list(self._waiting.items()):
            if is_much or sum(table.num_rows for table in tables) >= GROUP_ROWS:
                self._write_group(day)
        if is_much:  # texts so large that two groups in memory are too many
            self._wait()

    def finish(self) -> None:
        """Complete the files and store the cursor."""
        days = sorted(self._days)
        for day in days:
            self._write_group(day)
        self._wait()
        for day in days:
            writer = self._writers.pop(day)
            writer.parquet.close()
            with writer.file as file:
                sync_file(file)
            replace(self._unfinished(day), self._folder_of(day) / f"{self._name}.parquet")
            self.files += 1
        self.events += self._part_events
        self._part_events = 0
        if self._read_cursor != self.cursor or not (self._folder / _STATE).exists():
            state = _State(self._query, str(self._read_cursor))
            replace_text(self._folder / _STATE, json_line(state) + "\n")
        self.cursor = self._part_cursor = self._read_cursor

    @property
    def _days(self) -> set[date]:
        return {*self._waiting, *self._writers}

    def _write_group(self, day: date) -> None:
        if day not in self._waiting:
            return
        if day not in self._writers:
            self._folder_of(day).mkdir(parents=True, exist_ok=True)
            file = create_anew(self._unfinished(day))
            try:
                self._writers[day] = _Writer(file, _parquet_writer(file))
            except OSError:
                file.close()
                self._unfinished(day).unlink()
                raise
        tables = self._waiting.pop(day)
        self._waiting_bytes -= sum(table.nbytes + _TABLE_BYTES for table in tables)
        self._wait()
        self._writing = self._thread.submit(_write_group, self._writers[day].parquet, tables)

    def _wait(self) -> None:
        """Wait for the group that is being written; raises what stopped it."""
        if self._writing is not None:
            self._writing.result()

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


def _by_day(found: Sequence[Matches]) -> Iterator[tuple[date, EventColumns]]:
    """Cut events into days, in the order of the days."""
    if not found:
        return
    columns = columns_of(found)
    days = columns.at_us // _DAY_US
    several = np.unique(days).tolist()
    if len(several) == 1:
        yield _date(several[0]), columns
        return
    ends = np.cumsum([len(one.indexes) for one in found])[:-1]
    parts = list(zip(found, np.split(days, ends), strict=True))
    for day in several:
        of_day = [one.only(one.indexes[own == day]) for one, own in parts if (own == day).any()]
        yield _date(day), columns_of(of_day)


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def _parquet_writer(file: BinaryIO) -> pq.ParquetWriter:
    """Return a writer of files of `SCHEMA`.

    Values that hardly repeat are not looked up in dictionaries, which is a third of the work for larger files. Arrow's
    own schema is left out: it would say that texts are dictionaries, and some readers would believe it.
    """
    return pq.ParquetWriter(
        file,
        IN_MEMORY,
        compression="zstd",
        use_dictionary=[*SHARED, "position", "attempt"],
        store_schema=False,
        write_batch_size=8_192,  # a twelfth less work than with 1,024
    )


def _write_group(writer: pq.ParquetWriter, tables: Sequence[pa.Table]) -> None:
    # Of dictionaries that differ the writer would make plain texts.
    writer.write_table(pa.concat_tables(tables).unify_dictionaries())
