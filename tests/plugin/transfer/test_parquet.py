"""Exported events are read back by Parquet's own readers, each once, whatever ends an export."""

from __future__ import annotations

import errno
import json
import os
import uuid
from datetime import UTC, date, datetime, timedelta
from io import FileIO
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.codec import decode_batch, encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import AlreadyRunning, MetricsLogError
from chancy_metrics.events.facts import Combo, microseconds
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.events import pages
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer import parquet
from chancy_metrics.plugin.transfer.arrow_tables import SCHEMA, as_table
from chancy_metrics.plugin.transfer.parquet import ParquetFolder
from chancy_metrics.projections.search.columns import Matches, columns_of
from chancy_metrics.projections.search.event import Event, to_events
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.scan import Page
from tests.factories import NOON_US, LogWriter, a_row, a_run, an_app, sequence_all
from tests.plugin.audit.test_audit_events import audit
from tests.projections.search.test_columns import BATCHES, Facts, matches, matches_at
from tests.projections.search.test_query import chosen

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def an_event(position: int, at: datetime = NOON) -> Matches:
    """A batch of one observation."""
    made = encode([], [a_run("app:n", [float(position)], at_us=microseconds(at))])
    batch = LogBatch(position, uuid.UUID(int=1), position, "w1", made.last_us or 0, 1, *made[-3:])
    return Matches(batch, decode_batch(batch), np.arange(1))


def a_page(*events: Matches) -> Page:
    return Page(EventCursor(events[-1].batch.position), list(events), [])


def read(folder: Path) -> list[dict[str, Any]]:
    table = ds.dataset(folder, partitioning="hive").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["position"], row["index"]))


def positions(folder: Path) -> list[int]:
    return [row["position"] for row in read(folder)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_what_is_read_back_is_what_was_recorded(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    meta = {"customer": 4, "plan": "gold\u202e"}
    writer = LogWriter(connection, tables, "w1")
    await writer.append(
        jobs=[
            a_row(NOON_US, meta=msgspec.msgpack.encode(meta)),
            a_row(NOON_US + 86_400_000_000, state="failed", started_us=None, completed_us=None),
        ],
        runs=[a_run("app:n", [1.5, -2.0]), a_run("app:level", [1e300], kind="gauge", unit="slots")],
    )
    await sequence_all(connection, tables)
    everything, _ = await chosen(connection, tables)

    done = audit(dsn, "events", "--parquet", str(tmp_path / "log"))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote 5 events into 2 files; {tmp_path / 'log'} ends at 1\n"
    rows = read(tmp_path / "log")
    for event, row in zip(everything, rows, strict=True):
        assert row == row_of(event) | {"day": f"{event.at:%Y-%m-%d}"}
    assert [row["meta"] and json.loads(row["meta"]) for row in rows] == [meta, None, None, None, None]
    schema = ds.dataset(tmp_path / "log", partitioning="hive").schema
    assert schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert schema.remove(schema.get_field_index("day")).equals(SCHEMA)


def row_of(event: Event) -> dict[str, Any]:
    """A row as readers find it, made of one event in plain Python."""
    row = {name: getattr(event, name) for name in SCHEMA.names}
    row |= {"producer": str(event.producer), "job_id": event.job_id and str(event.job_id)}
    return row | {"error": event.error or None, "meta": json_line(event.meta) if event.meta else None}


@settings(deadline=None, max_examples=60)
@given(BATCHES)
def test_rows_are_those_of_events_one_by_one(facts: list[Facts]) -> None:
    found = matches(facts)
    assume(found)

    table = as_table(columns_of(found))

    table.validate(full=True)
    assert table.to_pylist() == [row_of(event) for event in to_events(found)]


@settings(deadline=None, max_examples=30)
@given(st.lists(BATCHES, max_size=4), st.integers(1, 6), st.integers(1, 12))
def test_a_folder_has_each_event_of_any_pages_in_the_folder_of_its_day(
    pages_facts: list[list[Facts]], group_rows: int, part_events: int
) -> None:
    facts = [one for several in pages_facts for one in several]
    by_position = {one.batch.position: one for one in matches(facts)}
    ends = [*accumulate(map(len, pages_facts))]
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(parquet, "GROUP_ROWS", group_rows)
        patch.setattr(parquet, "PART_EVENTS", part_events)
        with ParquetFolder(Path(folder), EventQuery()) as export:
            for several, end in zip(pages_facts, ends, strict=True):
                of_page = range(end - len(several) + 1, end + 1)
                page = [by_position[number] for number in of_page if number in by_position]
                export.write(Page(EventCursor(end), page, []))
            export.finish()
        rows = read(Path(folder)) if export.events else []
        days = {path.parent.name for path in Path(folder).rglob("*.parquet")}

    events = to_events(list(by_position.values()))
    assert rows == [row_of(event) | {"day": str(event.at.date())} for event in events]
    assert days == {f"day={event.at.date()}" for event in events}


def test_columns_have_types_that_every_reader_has_and_groups_of_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    with ParquetFolder(tmp_path, EventQuery()) as export:
        for number in range(1, 25):
            jobs = [a_row(NOON_US, func=f"app.work_{number % 3}") for _ in range(20)]
            export.write(a_page(*matches_at(number, (jobs, [], NOON_US, f"w{number}"))))
        export.finish()

    [file] = tmp_path.rglob("*.parquet")
    written = pq.ParquetFile(file)
    groups = [written.metadata.row_group(number) for number in range(written.num_row_groups)]
    assert written.schema_arrow.equals(SCHEMA) and written.schema_arrow.metadata is None
    assert [group.num_rows for group in groups] == [100, 100, 100, 100, 80]
    names = {column.path_in_schema: column for column in map(groups[0].column, range(groups[0].num_columns))}
    encodings = {encoding for column in names.values() for encoding in column.encodings}
    assert encodings <= {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}
    assert names["func"].total_uncompressed_size < 200  # a dictionary of five pages, and not 100 texts
    assert (names["func"].statistics.min, names["func"].statistics.max) == ("app.work_0", "app.work_2")
    assert (names["worker"].statistics.min, names["worker"].statistics.max) == ("w1", "w5")


def test_duckdb_finds_days_as_dates_and_moments_in_utc(tmp_path: Path) -> None:
    jobs = [a_row(NOON_US), a_row(NOON_US - 86_400_000_000, state="failed")]
    with ParquetFolder(tmp_path, EventQuery()) as export:
        export.write(a_page(*matches([(jobs, [a_run("app:n", [2.0])], NOON_US, "w1")])))
        export.finish()

    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        table = database.read_parquet(f"{tmp_path}/day=*/*.parquet", hive_partitioning=True)
        found = table.order('"position", "index"').project('day, "at"::text, job_id, state, value').fetchall()

    ids = [str(uuid.UUID(bytes=row.job_id)) for row in jobs]
    assert found == [
        (date(2026, 3, 10), "2026-03-10 12:00:00+00", ids[0], "succeeded", None),
        (date(2026, 3, 9), "2026-03-09 12:00:00+00", ids[1], "failed", None),
        (date(2026, 3, 10), "2026-03-10 12:00:00+00", None, None, 2.0),
    ]


def test_texts_that_all_differ_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2_000_000)
    errors = [f"app.Declined: {number} {'x' * 10_000}" for number in range(1_000)]
    with ParquetFolder(tmp_path, EventQuery()) as export:
        for number in range(10):
            some = errors[100 * number : 100 * number + 100]
            jobs = [a_row(NOON_US)._replace(combo=Combo("f", "q", "failed", 1, error)) for error in some]
            export.write(a_page(*matches_at(number + 1, (jobs, [], NOON_US, "w1"))))
        export.finish()

    [file] = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(file).num_row_groups == 5
    assert [row["error"] for row in read(tmp_path)] == errors


class Filling(FileIO):
    """A file on a disk that has room for so many bytes."""

    room = 0

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room", [0, 3_000])
def test_a_full_disk_is_said_and_leaves_no_unfinished_file(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    monkeypatch.setattr(parquet, "create_anew", lambda path: Filling(path, "x"))
    monkeypatch.setattr(Filling, "room", room)
    with pytest.raises(OSError, match="No space left"), ParquetFolder(tmp_path, EventQuery()) as export:
        for number in range(1, 4):
            export.write(a_page(an_event(number)))
        export.finish()

    assert files(tmp_path) == []
    with ParquetFolder(tmp_path, EventQuery()) as export:
        assert export.cursor == EventCursor(0)


def test_what_ends_an_export_is_told_and_not_that_the_disk_is_full_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "create_anew", lambda path: Filling(path, "x"))
    monkeypatch.setattr(Filling, "room", 1 << 20)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    with pytest.raises(ZeroDivisionError), ParquetFolder(tmp_path, EventQuery()) as export:
        for number in range(1, 3):
            export.write(a_page(an_event(number)))
        export._wait()
        monkeypatch.setattr(Filling, "room", 0)
        raise ZeroDivisionError

    assert files(tmp_path) == []


@pytest.mark.slow
async def test_the_same_command_again_adds_what_is_new_and_another_is_refused(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    await sequence_all(connection, tables)
    asked = ("--key", "app:n", "--kind", "counter", "--since", "2026-01-01", "--after", "0")
    first = audit(dsn, "events", *asked, "--parquet", str(tmp_path))
    await writer.append(runs=[a_run("app:n")])
    await writer.append(runs=[a_run("app:m")])
    await sequence_all(connection, tables)

    second = audit(dsn, "events", *asked, "--parquet", str(tmp_path))
    third = audit(dsn, "events", *asked, "--parquet", str(tmp_path))
    other = audit(dsn, "events", "--parquet", str(tmp_path))

    assert [one.stdout.split(";")[0] for one in (first, second, third)] == [
        "wrote 1 event into 1 file",
        "wrote 1 event into 1 file",
        "wrote 0 events into 0 files",
    ]
    assert positions(tmp_path) == [1, 2]
    assert other.returncode == 1
    assert "holds the events of another query" in other.stderr and other.stderr.count("\n") == 1


def test_who_is_killed_before_the_cursor_is_kept_writes_the_same_files_again(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(parquet, "replace_text", lambda path, text: (_ for _ in ()).throw(KeyboardInterrupt))
        with ParquetFolder(tmp_path, EventQuery()) as export:
            export.write(a_page(an_event(1), an_event(2, NOON + DAY)))
            export.finish()
    assert positions(tmp_path) == [1, 2]

    with ParquetFolder(tmp_path, EventQuery()) as export:
        assert export.cursor == EventCursor(0)
        export.write(a_page(an_event(1), an_event(2, NOON + DAY), an_event(3)))
        export.finish()

    assert positions(tmp_path) == [1, 2, 3]
    assert len(files(tmp_path)) == 3


def test_what_is_not_whole_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1)
    with pytest.raises(ZeroDivisionError), ParquetFolder(tmp_path, EventQuery()) as export:
        export.write(a_page(an_event(1)))
        assert len(files(tmp_path)) == 1
        assert positions(tmp_path) == []
        raise ZeroDivisionError

    assert files(tmp_path) == []


def test_files_end_now_and_then_and_days_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    monkeypatch.setattr(parquet, "PART_EVENTS", 6)
    monkeypatch.setattr(parquet, "PART_DAYS", 3)
    with ParquetFolder(tmp_path, EventQuery()) as export:
        for number in range(1, 31):
            export.write(a_page(an_event(number, NOON + (number % 10) * DAY)))
            assert len(list(tmp_path.rglob("*.unfinished"))) <= 4
        export.finish()

    assert positions(tmp_path) == list(range(1, 31))
    assert export.events == 30
    assert len(list(tmp_path.glob("day=*"))) == 10
    with ParquetFolder(tmp_path, EventQuery()) as again:
        assert again.cursor == EventCursor(30)


async def test_an_export_in_small_parts_holds_each_event_once(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.projections.search.scan.PAGE_EVENTS", 3)
    monkeypatch.setattr(parquet, "PART_EVENTS", 4)
    await LogWriter(connection, tables).append(runs=[a_run("app:n", [1.0] * 20)])
    await sequence_all(connection, tables)

    async with an_app(dsn) as (chancy, _):
        for _ in range(8):  # each run is ended in the midst of things
            with ParquetFolder(tmp_path, EventQuery()) as export:
                taken = 0
                async for page in pages(chancy, EventQuery(after=export.cursor)):
                    export.write(page)
                    taken += 1
                    if taken == 3:
                        break
    with ParquetFolder(tmp_path, EventQuery()) as export:
        async with an_app(dsn) as (chancy, _):
            async for page in pages(chancy, EventQuery(after=export.cursor)):
                export.write(page)
        export.finish()

    assert [(row["position"], row["index"]) for row in read(tmp_path)] == [(1, index) for index in range(20)]


@pytest.mark.parametrize("content", ["", "{}", '{"query": {}, "cursor": "x"}', "[1]"])
def test_a_folder_whose_cursor_is_broken_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "_cursor.json").write_text(content)

    with pytest.raises(MetricsLogError, match="does not say up to where"), ParquetFolder(tmp_path, EventQuery()):
        pass


def test_a_folder_that_lost_its_cursor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PART_EVENTS", 1)
    with ParquetFolder(tmp_path, EventQuery()) as export:
        export.write(a_page(an_event(1)))
        export.write(a_page(an_event(2)))
        export.finish()
    (tmp_path / "_cursor.json").unlink()

    with pytest.raises(MetricsLogError, match=r"has no _cursor\.json"), ParquetFolder(tmp_path, EventQuery()):
        pass

    assert positions(tmp_path) == [1, 2]


def test_two_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        ParquetFolder(tmp_path, EventQuery()),
        pytest.raises(AlreadyRunning, match="another process writes"),
        ParquetFolder(tmp_path, EventQuery()),
    ):
        pass
    with ParquetFolder(tmp_path, EventQuery()) as export:
        export.write(a_page(an_event(1)))
        export.finish()

    assert positions(tmp_path) == [1]


async def test_a_folder_that_can_not_be_written_is_one_sentence(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")

    done = audit(dsn, "events", "--parquet", str(tmp_path / "log" / "below"))

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


async def test_without_pyarrow_it_says_what_to_install(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")

    done = audit(dsn, "events", "--parquet", str(tmp_path / "log"), PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert "pip install 'chancy-metrics[parquet]'" in done.stderr and done.stderr.count("\n") == 1
