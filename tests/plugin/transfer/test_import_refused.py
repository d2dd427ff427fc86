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
import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from chancy_metrics.events.chain import link
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import DamagedExport, ImportRefused, MetricsLogError
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.events.transfer.file import Writer
from chancy_metrics.events.transfer.frames import Baseline, Frame, GoneDay, Header, Point, Points, Producer
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.transfer.abandon_import import abandon_import
from chancy_metrics.plugin.transfer.import_check import ExportContents
from chancy_metrics.projections.fold.sketch import encode as sketch_of
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
    *(None, "app:n", "counter", "count", 1_773_014_400, 2, 1_773_020_000_000_000, "2.5", 0.5, 2.0),
    *(None, None, None, None, None, None, None),
)
HISTOGRAM = msgspec.structs.replace(
    POINT, kind="histogram", unit="s", p50=1.0, p95=2.0, p99=2.0, sketch=sketch_of([1, 2], [1, 1])
)
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


def prologue(*, gone: Sequence[date] = (GONE,), baseline: Baseline = BASELINE, point: Any = None, producer: Any = None):
    points = [POINT, HISTOGRAM] if point is None else [point]
    return [GoneDay(day, 1, None) for day in gone] + [baseline, Points("1day", points), producer or PRODUCER]


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
        "a worker with NUL": {"worker": "\x00"},
        "a sketch of a counter": {"sketch": HISTOGRAM.sketch},
        "a sketch that is none": {"kind": "histogram", "sketch": b"\x92\x01\x00"},
        "an event of the year 300,000": {"last_us": YEAR_300_000_US},
    }.items():
        yield name, frames_of(*prologue(point=of(POINT, **changes)))
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


async def state(connection: Connection, tables: Tables) -> list[list[TupleRow]]:
    """All there is of a log, but what waits."""
    queries = [HEAD, LOG, "SELECT day, state FROM {days} ORDER BY day", "SELECT count(*) FROM {ledger}"]
    queries += ["SELECT count(*) FROM {producers}", "SELECT count(*) FROM {summaries}", "SELECT count(*) FROM {r1day}"]
    queries += ["SELECT version, position, counts, horizon_1min FROM {versions} ORDER BY version"]
    return [await fetch(connection, query, tables) for query in queries]


async def test_an_import_that_is_refused_changes_nothing(
    tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    dsn, connection = target
    before = await state(connection, tables)
    twice = prologue(point=POINT)
    twice.insert(2, twice[2])
    ahead = {name: (now_us() // 1_000_000 + 86_400) for name in RESOLUTIONS}
    wanted = [
        *(CLAIMS[name] for name in ("NUL in a batch's worker", "a producer seen in the year 300,000", "a count of 0")),
        *(CLAIMS[name] for name in ("a sum that is NaN", "the batch before", "a count past 64 bits")),
        frames_of(*twice),
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
    for table in ("ledger", "producers", "summaries", "dead_letters", *(f"r{name}" for name in RESOLUTIONS)):
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
        (b"\x93\xa8baseline\xdf\xff\xff\xff\xff\x80", "counts"),
        (b"\x91" * 1_000_000, "nesting"),
        (b"\x92\xa7trailer" + b"\x91" * 1_000_000, "nested-trailer"),
    ]
    paths = [
        sparse(tmp_path / "trailer", start, claim + bytes(32), 5 << 30),
        sparse(tmp_path / "frame", start + claim, tail, 5 << 30),
        sparse(tmp_path / "batch", start + (2**30).to_bytes(4, "big") + b"\xdc\x00\x10\xa5batch", tail, 5 << 30),
    ]
    for data, name in small:
        paths.append(tmp_path / name)
        paths[-1].write_bytes(start + len(data).to_bytes(4, "big") + data + bytes(36))

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, paths)], capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.split() == [word for path in paths for word in (path.name, "export")]
