"""What a log can never hold is refused before an import begins, and an import that has begun can be taken back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from chancy_metrics.events.chain import link
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import DamagedExport, ImportRefused, MetricsLogError
from chancy_metrics.events.facts import Series
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.events.transfer.file import Writer
from chancy_metrics.events.transfer.frames import (
    Baseline,
    Frame,
    GoneDay,
    Header,
    Point,
    Points,
    Producer,
    Segment,
    Segments,
)
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.transfer.abandon_import import abandon_import
from chancy_metrics.plugin.transfer.import_check import ExportContents
from chancy_metrics.projections.fold.cell_codec import encode_runs
from chancy_metrics.projections.fold.cells import Cells, Sketches
from chancy_metrics.projections.fold.sketch_codec import encode as sketch_of
from chancy_metrics.projections.versions.advance import advance
from tests.commands import run
from tests.events.transfer.test_export_file import a_chain
from tests.factories import NOON_US, LogWriter, a_run, an_app, fetch, now_us, total
from tests.plugin.audit.test_seal_and_check import pruned_history
from tests.plugin.transfer.test_export_import import (
    HEAD,
    LOG,
    exported,
    folded,
    imported,
    importing,
    numbers,
    some_log,
    target,
)

__all__ = ["target"]  # a fixture
YEAR_300_000_US = 300_000 * 31_556_952_000_000
GONE = date(2026, 3, 9)
POINT = Point(
    *("app:n", "counter", "count", 1_773_014_400, 2, 1_773_020_000_000_000, "2.5", 0.5, 2.0),
    *(None, None, None, None, None, None, None),
)
HISTOGRAM = msgspec.structs.replace(
    POINT, kind="histogram", unit="s", p50=1.0, p95=2.0, p99=2.0, sketch=sketch_of([1, 2], [1, 1])
)
SERIES = [Series("app:n", "counter", "count"), Series("app:n", "histogram", "s")]


def run_of(*cells: tuple[int, int, float, int | None]) -> bytes:
    """A run of cells of one observation each: (series, bucket, value, code of its sketch)."""
    series, bucket, value, codes = (list(column) for column in zip(*cells, strict=True))
    rows, owners = len(cells), [row for row, code in enumerate(codes) if code is not None]
    ones, zeros, nan = np.ones(rows, np.int64), np.zeros(rows, np.int64), np.full(rows, np.nan)
    sketches = Sketches(
        np.array(owners, np.int64), np.array([codes[row] for row in owners]), np.ones(len(owners), np.int64)
    )
    made = Cells(
        *(zeros, np.array(series), np.array(bucket), ones, np.full(rows, POINT.last_us)),
        *((np.array(value) * 1_000_000).astype(np.int64), {}, np.array(value), np.array(value)),
        *(nan, zeros, zeros, sketches),
    )
    return encode_runs(made, np.array([0, rows]), compressed=True)[0]


def segments(*workers: str, series: Sequence[Series] = SERIES, **changes: Any) -> Segments:
    """What two workers, "a" and "b", add to POINT and HISTOGRAM; with changes in the last segment."""
    values = {"a": (0.5, 1), "b": (2.0, 2)}
    made = []
    for worker in workers or ("a", "b"):
        value, code = values.get(worker, (1.0, 1))
        made.append(
            Segment(worker, "1day", GONE, 0, run_of((0, POINT.bucket, value, None), (1, POINT.bucket, value, code)))
        )
    made[-1] = msgspec.structs.replace(made[-1], **changes)
    return Segments(list(series), made)


PRODUCER = Producer(UUID(int=7), "worker", 3, False, 0, NOON_US)
BASELINE = Baseline(dict.fromkeys(RESOLUTIONS, 0), {"expired": 1})


def linked(entries: Sequence[LedgerEntry], **changes: Any) -> list[LedgerEntry]:
    """Return the entries with changed columns of the second one, and matching hashes."""
    done: list[LedgerEntry] = []
    for number, entry in enumerate(entries):
        assert entry.row is not None
        row = entry.row._replace(**changes) if number == 1 else entry.row
        chain = link(done[-1].chain if done else b"", entry.position, row)
        done.append(
            entry._replace(
                row=row,
                chain=chain,
                events=row.events,
                batch_id=entry.batch_id._replace(day=row.day, producer=row.producer, sequence=row.sequence),
            )
        )
    return done


def frames_of(*middle: Frame, entries: Sequence[LedgerEntry] = ()) -> list[Frame | LedgerEntry]:
    entries = entries or a_chain(3)
    return [Header(None, entries[-1].position, entries[-1].chain), *middle, *entries]


def prologue(
    *,
    gone: Sequence[date] = (GONE,),
    baseline: Baseline = BASELINE,
    point: Any = None,
    workers: Sequence[Segments] = (segments(),),
    producer: Any = None,
) -> list[Frame]:
    points = [POINT, HISTOGRAM] if point is None else [point]
    return [*(GoneDay(day, 1, None) for day in gone), baseline, Points("1day", points), *workers, producer or PRODUCER]


def write(path: Path, frames: Sequence[Frame | LedgerEntry]) -> Path:
    with path.open("wb") as file:
        writer = Writer(file)
        for frame in frames:
            writer.put_entry(frame) if isinstance(frame, LedgerEntry) else writer.put(frame)
        writer.finish(NOON_US)
    return path


def claims() -> Iterator[tuple[str, list[Frame | LedgerEntry]]]:
    """Files with right hashes and lengths that no log can ever take, by what they claim."""
    of = msgspec.structs.replace
    for name, changes in {
        "NUL in a batch's worker": {"worker": "w\x00"},
        "a worker of 2 kB": {"worker": "w" * 2_000},
        "a batch of the year 300,000": {"appended_us": YEAR_300_000_US},
        "a batch before 1970": {"appended_us": -1},
        "a batch of the day 9999-12-31": {"day": date.max},
        "a batch of the day 0044-03-15": {"day": date(44, 3, 15)},
        "an event past 64 bits": {"last_us": 2**63},
        "an event before the year 1": {"first_us": -(2**62)},
        "a sequence near 2^63": {"sequence": 2**63 - 1},
        "a sequence of 0": {"sequence": 0},
        "events past 32 bits": {"events": 2**31},
        "negative events": {"events": -1},
        "a codec past 16 bits": {"codec": 2**15},
        "the batch before": {"sequence": 1},
    }.items():
        yield name, frames_of(entries=linked(a_chain(3), **changes))
    for name, changes in {
        "NUL in a producer's worker": {"worker": "\x00"},
        "a producer seen in the year 300,000": {"seen_us": YEAR_300_000_US},
        "holes past 64 bits": {"holes": 2**63},
        "negative holes": {"holes": -1},
    }.items():
        yield name, frames_of(*prologue(producer=of(PRODUCER, **changes)))
    for name, changes in {
        "a negative count": {"count": -1},
        "a count of 0": {"count": 0},
        "a count past 64 bits": {"count": 2**63},
        "a sum that is NaN": {"sum": "NaN"},
        "a sum that is infinite": {"sum": "Infinity"},
        "a sum in words": {"sum": "1; DROP TABLE x"},
        "a sum of a million digits": {"sum": "9" * 1_000_000},
        "a minimum that is NaN": {"min": float("nan")},
        "an infinite maximum": {"max": float("inf")},
        "a minimum above the maximum": {"min": 3.0},
        "a quantile that is NaN": {"p50": float("nan")},
        "a last value of a counter": {"last": 1.0, "last_position": 1, "last_index": 0},
        "a position without a value": {"last_position": 1},
        "a bucket between two": {"bucket": POINT.bucket + 60},
        "a bucket of 2^63 - 1": {"bucket": 2**63 - 1},
        "a key with NUL": {"key": "a\x00"},
        "a key of 2 kB": {"key": "k" * 2_000},
        "an unknown kind": {"kind": "meter"},
        "an empty unit": {"unit": ""},
        "a sketch of a counter": {"sketch": HISTOGRAM.sketch},
        "a sketch that is none": {"kind": "histogram", "sketch": b"\x92\x01\x00"},
        "an event of the year 300,000": {"last_us": YEAR_300_000_US},
    }.items():
        yield name, frames_of(*prologue(point=of(POINT, **changes)))
    of_day = POINT.bucket
    for name, segment in {
        "a segment of bytes that are no run": {"data": b"x"},
        "a segment of no bytes": {"data": b""},
        "a run that ends early": {"data": run_of((0, of_day, 1.0, None))[:-1]},
        "a run of newer code": {"data": b"\x07" + run_of((0, of_day, 1.0, None))[1:]},
        "a cell of a series that its frame does not have": {"data": run_of((2, of_day, 1.0, None))},
        "a cell in a bucket between two": {"data": run_of((0, of_day + 60, 1.0, None))},
        "a cell of a counter with a sketch": {"data": run_of((0, of_day, 1.0, 1))},
        "an unknown resolution": {"resolution": "2day"},
        "a worker with NUL": {"worker": "\x00"},
        "a worker of 2 kB in a segment": {"worker": "w" * 2_000},
        "a segment of the day 9999-12-31": {"day": date.max},
        "a negative part": {"part": -1},
        "a part past 32 bits": {"part": 2**31},
        "the same segment twice": {"worker": "a"},
    }.items():
        yield name, frames_of(*prologue(workers=[segments(**segment)]))
    for name, series in {
        "a series with NUL": [Series("a\x00", "counter", "count"), SERIES[1]],
        "a series of 2 kB": [SERIES[0], Series("k" * 2_000, "histogram", "s")],
        "a series of an unknown kind": [SERIES[0], Series("app:n", "meter", "s")],  # type: ignore[arg-type]
        "a series without a unit": [SERIES[0], Series("app:n", "histogram", "")],
        "a gauge without a last value": [SERIES[0], Series("app:n", "gauge", "s")],
        "a series twice": [SERIES[0], SERIES[0]],
        "series in another order": SERIES[::-1],
        "a series less": SERIES[:1],
    }.items():
        yield name, frames_of(*prologue(workers=[segments(series=series)]))
    yield "segments of workers in another order", frames_of(*prologue(workers=[segments("b"), segments("a")]))
    yield "a segment in two frames", frames_of(*prologue(workers=[segments("a"), segments()]))
    yield "a frame without segments", frames_of(*prologue(workers=[Segments(SERIES, [])]))
    yield "segments without a baseline", frames_of(segments())
    yield "segments before the points", frames_of(BASELINE, segments(), Points("1day", [POINT]))
    for name, baseline in {
        "a negative count of the baseline": of(BASELINE, counts={"expired": -1}),
        "a count of the baseline past 64 bits": of(BASELINE, counts={"expired": 2**63}),
        "NUL in a count's name": of(BASELINE, counts={"\x00": 1}),
        "no horizons": of(BASELINE, horizons={}),
        "another resolution": of(BASELINE, horizons=BASELINE.horizons | {"2day": 0}),
        "a horizon past 64 bits": of(BASELINE, horizons=BASELINE.horizons | {"1day": 2**63}),
    }.items():
        yield name, frames_of(*prologue(baseline=baseline))
    yield "days in another order", frames_of(*prologue(gone=(GONE, GONE - timedelta(days=1))))
    yield "a day of the year 9999", frames_of(*prologue(gone=(date.max,)))
    yield "points without a baseline", frames_of(Points("1day", [POINT]))
    yield "a baseline twice", frames_of(*prologue()[:2], BASELINE)
    yield "two headers", frames_of(Header(None, 0, b""))
    yield "no header", frames_of()[1:]
    yield "a producer behind the entries", [*frames_of(), PRODUCER]
    yield "a hash of one byte", [Header(None, 3, b"x"), *a_chain(3)]


CLAIMS = dict(claims())
#: Files whose baseline's points are not the sum of its workers'.
CONTRADICTIONS = {
    "no workers": prologue(workers=()),
    "a worker less": prologue(workers=[segments("a")]),
    "a worker more": prologue(workers=[segments("a", "b", "c")]),
    "another value": prologue(point=msgspec.structs.replace(POINT, sum="2.500001")),
    "another sketch": prologue(point=msgspec.structs.replace(HISTOGRAM, sketch=sketch_of([1, 3], [1, 1]))),
    "a point twice": [*prologue()[:3], *prologue()[2:]],
    "another series": prologue(workers=[segments(series=[SERIES[0], Series("app:n", "histogram", "ms")])]),
}


def test_the_files_without_a_false_claim_are_fine(tmp_path: Path) -> None:
    contents = ExportContents(write(tmp_path / "log", frames_of(*prologue())))
    contents.check()

    assert contents.gone == {GONE}
    assert contents.days == {date(2026, 3, 10)}


@pytest.mark.parametrize("frames", CLAIMS.values(), ids=CLAIMS)
def test_what_no_log_can_hold_is_refused_by_who_looks_it_through(
    frames: list[Frame | LedgerEntry], tmp_path: Path
) -> None:
    with pytest.raises(DamagedExport) as raised:
        ExportContents(write(tmp_path / "log", frames)).check()

    assert str(raised.value).startswith(str(tmp_path / "log"))
    assert len(str(raised.value)) < 1_000
    assert "contradicts itself" not in str(raised.value)


@pytest.mark.parametrize("frames", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_merged_points_that_are_not_the_sum_of_the_workers_are_refused(frames: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(DamagedExport, match="has a baseline that contradicts itself: ") as raised:
        ExportContents(write(tmp_path / "log", frames_of(*frames))).check()

    assert str(raised.value).startswith(str(tmp_path / "log"))
    assert len(str(raised.value)) < 1_000


def test_a_frame_that_claims_too_many_cells_is_refused_before_they_are_all_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "log", frames_of(*prologue()))
    monkeypatch.setattr("chancy_metrics.projections.versions.segments_io.MAX_CELLS", 3)

    with pytest.raises(DamagedExport, match=r"of worker 'b' of 2026-03-09 is in a frame with more than 3 cells"):
        ExportContents(path).check()


async def state(connection: Connection, tables: Tables) -> list[list[TupleRow]]:
    """All there is of a log, but what waits."""
    queries = [HEAD, LOG, "SELECT day, state FROM {days} ORDER BY day", "SELECT count(*) FROM {ledger}"]
    queries += [
        "SELECT count(*) FROM {worker_segments}",
        "SELECT count(*) FROM {producers}",
        "SELECT count(*) FROM {summaries}",
        "SELECT count(*) FROM {r1day}",
    ]
    queries += ["SELECT version, position, counts, horizon_1min FROM {versions} ORDER BY version"]
    return [await fetch(connection, query, tables) for query in queries]


async def test_an_import_that_is_refused_changes_nothing(
    tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    dsn, connection = target
    before = await state(connection, tables)
    ahead = {name: (now_us() // 1_000_000 + 86_400) for name in RESOLUTIONS}
    wanted = [
        *(CLAIMS[name] for name in ("NUL in a batch's worker", "a producer seen in the year 300,000", "a count of 0")),
        *(CLAIMS[name] for name in ("a sum that is NaN", "the batch before", "a count past 64 bits")),
        CLAIMS["a cell of a series that its frame does not have"],
        *(frames_of(*frames) for frames in CONTRADICTIONS.values()),
        frames_of(*prologue(baseline=msgspec.structs.replace(BASELINE, horizons=ahead))),
    ]
    for number, frames in enumerate(wanted):
        with pytest.raises((DamagedExport, ImportRefused)):
            await imported(dsn, write(tmp_path / f"log{number}", frames))

        assert not await importing(connection, tables)
        assert await state(connection, tables) == before
    async with an_app(dsn) as (chancy, _):
        assert (await verify(chancy)).drift == 0


async def test_days_that_are_gone_here_are_found_before_it_begins(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    today = datetime.now(UTC).date()
    await fetch(target[1], "UPDATE {days} SET state = 'closed' WHERE day = %(day)s", tables, day=today)

    with pytest.raises(ImportRefused, match=f"{today} has left the log of this database"):
        await imported(target[0], tmp_path / "log")

    assert not await importing(target[1], tables)


@pytest.mark.slow
async def test_an_import_that_was_stopped_can_be_taken_back(
    dsn: str,
    connection: Connection,
    tables: Tables,
    target: tuple[str, Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await pruned_history(connection, tables)
    await exported(dsn, tmp_path / "log")
    copy, there = target
    await LogWriter(there, tables, "local").append(runs=[a_run("app:local", at_us=now_us())])
    waiting = await fetch(there, "SELECT day, producer, sequence FROM {pending}", tables)
    monkeypatch.setattr("chancy_metrics.events.transfer.check.PAGE", 2)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await imported(copy, tmp_path / "log", on_progress=stop)
    await order_and_fold_what_came(copy)
    held = run(copy, "fold")
    usage = run(copy, "audit", "import")
    taken = run(copy, "audit", "import", "--abandon")
    again = run(copy, "audit", "import", "--abandon")

    assert held.returncode == 1 and "audit import --abandon" in held.stderr
    assert usage.returncode == 2
    assert (taken.returncode, taken.stderr) == (0, "")
    assert taken.stdout.startswith("undone: ") and "the ledger is empty again" in taken.stdout
    assert again.returncode == 1 and "nothing to abandon" in again.stderr
    assert not await importing(there, tables)
    assert await fetch(there, HEAD, tables) == [(0, b"")]
    assert await fetch(there, "SELECT day, producer, sequence FROM {log}", tables) == waiting
    for table in (
        "ledger",
        "producers",
        "summaries",
        "dead_letters",
        "worker_segments",
        *(f"r{name}" for name in RESOLUTIONS),
    ):
        assert await fetch(there, f"SELECT count(*) FROM {{{table}}}", tables) == [(0,)], table
    assert await fetch(there, "SELECT 1 FROM {days} WHERE state IN ('absorbed', 'gone')", tables) == []

    await folded(copy)
    assert await total(there, tables, "app:local") == [1] * 4
    async with an_app(copy) as (chancy, _):
        assert (await check(chancy)).found == 0
        assert (await verify(chancy)).drift == 0


async def order_and_fold_what_came(dsn: str) -> None:
    """Fold what an import has brought so far, as a worker would."""
    async with an_app(dsn) as (chancy, _), await AsyncConnection.connect(dsn, autocommit=True) as connection:
        assert (await advance(connection, tables_for(chancy.prefix), folded_by="test")).position


async def test_what_was_taken_back_can_be_taken_again(
    dsn: str,
    connection: Connection,
    tables: Tables,
    target: tuple[str, Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await pruned_history(connection, tables)
    await exported(dsn, tmp_path / "log")
    copy, there = target
    with monkeypatch.context() as patch:
        patch.setattr("chancy_metrics.events.transfer.check.PAGE", 2)
        with pytest.raises(KeyboardInterrupt):
            await imported(copy, tmp_path / "log", on_progress=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    async with an_app(copy) as (chancy, _):
        await abandon_import(chancy)

    await imported(copy, tmp_path / "log")
    await folded(copy)

    assert await numbers(there, tables) == await numbers(connection, tables)


async def test_an_import_that_was_taken_back_by_somebody_else_says_so(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")

    def give_up(_: object) -> None:
        done = run(target[0], "audit", "import", "--abandon")
        assert done.returncode == 0, done.stderr

    with pytest.raises(MetricsLogError, match="taken back"):
        await imported(target[0], tmp_path / "log", on_progress=give_up)

    assert await fetch(target[1], HEAD, tables) == [(0, b"")]
    assert not await importing(target[1], tables)


def sparse(path: Path, start: bytes, end: bytes, size: int) -> Path:
    """A file of *size* bytes that takes next to none on disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size - len(end))
        file.seek(size - len(end))
        file.write(end)
    return path


LIMITED = """
import resource, sys
from pathlib import Path
from chancy_metrics.events.transfer import file as export_file
from chancy_metrics.events.errors import DamagedExport
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
export_file.sha256 = lambda *_: type("Digest", (), {"update": lambda *_: None, "digest": lambda *_: bytes(32)})()
for path in map(Path, sys.argv[1:]):
    try:
        if path.name.startswith("trailer"):
            export_file.check_whole(path)
        else:
            list(export_file.read_frames(path))
    except DamagedExport as error:
        print(path.name, error.kind)
"""


@pytest.mark.slow
def test_claims_of_4_gib_take_no_memory(tmp_path: Path) -> None:
    """In a process that may have 256 MB more than it has."""
    start = b"chancy-metrics export 1\n"
    claim = (2**32 - 1).to_bytes(4, "big")
    tail = (100).to_bytes(4, "big") + bytes(32)
    small = [
        (b"\x94\xa6header\xc0\xc6\xff\xff\xff\xff", "bytes"),
        (b"\xdd\xff\xff\xff\xff", "array"),
        (b"\x93\xa6points\xa41day\xdd\xff\xff\xff\xff", "points"),
        (b"\x93\xa8segments\x90\xdd\xff\xff\xff\xff", "segments"),
        (b"\x93\xa8baseline\xdf\xff\xff\xff\xff\x80", "counts"),
        (b"\x91" * 1_000_000, "nesting"),
        (b"\x92\xa7trailer" + b"\x91" * 1_000_000, "nested-trailer"),
    ]
    paths = [
        sparse(tmp_path / "trailer", start, claim + bytes(32), 2**32 + 2**20),
        sparse(tmp_path / "frame", start + claim, tail, 2**32 + 2**20),
        sparse(tmp_path / "batch", start + (2**30).to_bytes(4, "big") + b"\xdc\x00\x10\xa5batch", tail, 2**30 + 2**20),
    ]
    for data, name in small:
        paths.append(tmp_path / name)
        paths[-1].write_bytes(start + len(data).to_bytes(4, "big") + data + bytes(36))

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths)], capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.split() == [word for path in paths for word in (path.name, "export")]
