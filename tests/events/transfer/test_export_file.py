"""A file that is not what was written is refused before anything of it is taken, whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.batch import BatchId, LogRow
from chancy_metrics.events.chain import link
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import ImportRefused
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.check import checked_entries
from chancy_metrics.events.transfer.file import DamagedExport, Writer, check_whole, read_frames
from chancy_metrics.events.transfer.frames import Batch, Frame, GoneDay, Header, entry_of
from tests.factories import NOON_US, a_run, fetch
from tests.plugin.transfer.test_export_import import HEAD, exported, imported, importing, some_log, target

__all__ = ["target"]  # a fixture


def forge(path: Path, change: Callable[[Frame], Frame | None]) -> Path:
    """Write the file again as somebody would who knows its format."""
    forged = path.with_name("forged")
    with forged.open("wb") as file:
        writer = Writer(file)
        for frame in read_frames(path):
            if (changed := change(frame)) is None or type(changed).__name__ == "Trailer":
                continue
            writer.put_entry(entry_of(changed)) if isinstance(changed, Batch) else writer.put(changed)
        writer.finish(0)
    return forged


def at(position: int, **changes: object) -> Callable[[Frame], Frame | None]:
    def change(frame: Frame) -> Frame | None:
        if isinstance(frame, Batch) and frame.position == position:
            return msgspec.structs.replace(frame, **changes)
        return frame

    return change


def rehashed(position: int) -> Callable[[Frame], Frame | None]:
    """Another payload, with its own sha256 and a hash that covers it."""
    before = [b""]

    def change(frame: Frame) -> Frame | None:
        if isinstance(frame, Batch):
            if frame.position == position:
                payload = encode((), [a_run("app:forged")]).payload
                frame = msgspec.structs.replace(frame, payload=payload, sha256=sha256(payload).digest())
                row = entry_of(frame).row
                assert row is not None
                frame = msgspec.structs.replace(frame, chain=link(before[0], position, row))
            before[0] = frame.chain
        return frame

    return change


def without(position: int) -> Callable[[Frame], Frame | None]:
    return lambda frame: None if isinstance(frame, Batch) and frame.position == position else frame


@pytest.mark.parametrize(
    ("change", "position", "why"),
    [
        (at(4, payload=b"forged"), 4, "the payload does not match its sha256"),
        (at(4, payload=b"f", sha256=sha256(b"f").digest()), 4, "its hash does not cover its row"),
        (at(4, worker="somebody"), 4, "its hash does not cover its row"),
        (at(4, appended_us=0), 4, "its hash does not cover its row"),
        (at(4, chain=b"\1" * 32), 4, "its hash does not cover its row"),
        (at(4, ledger_events=1), 4, "its ledger row says 1 events"),
        (rehashed(4), 5, "its hash does not cover its row"),
        (without(4), 5, "position 4 is missing before it"),
        (without(1), 2, "the hash before it is missing"),
    ],
)
async def test_a_forged_batch_is_refused_at_its_position_before_anything_is_taken(
    change: Callable[[Frame], Frame | None],
    position: int,
    why: str,
    dsn: str,
    connection: Connection,
    tables: Tables,
    target: tuple[str, Connection],
    tmp_path: Path,
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")

    with pytest.raises(ImportRefused, match=f"position {position} of .* is not what was written: {why}"):
        await imported(target[0], forge(tmp_path / "log", change))

    assert await fetch(target[1], HEAD, tables) == [(0, b"")]
    assert await fetch(target[1], "SELECT count(*) FROM {log}", tables) == [(0,)]
    assert not await importing(target[1], tables)


async def test_the_last_hash_of_the_header_is_checked_at_the_end(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")

    def longer(frame: Frame) -> Frame:
        return msgspec.structs.replace(frame, position=9) if isinstance(frame, Header) else frame

    with pytest.raises(ImportRefused, match="ends at position 7, not at 9"):
        await imported(target[0], forge(tmp_path / "log", longer))


@pytest.mark.parametrize("cut", [0, 10, 24, 30, 60, 0.5, -1, -40])
async def test_a_file_that_was_cut_short_or_changed_is_refused_before_anything_is_taken(
    cut: float, dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables, batches=3)
    path = tmp_path / "log"
    await exported(dsn, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut) if 0 < cut < 1 else int(cut)])
    flipped = tmp_path / "flipped"
    flipped.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])

    for damaged in (path, flipped):
        with pytest.raises(DamagedExport):
            await imported(target[0], damaged)

    assert await fetch(target[1], HEAD, tables) == [(0, b"")]
    assert not await importing(target[1], tables)


def test_a_file_of_a_newer_format_says_so(tmp_path: Path) -> None:
    path = tmp_path / "newer"
    path.write_bytes(b"chancy-metrics export 2\n" + bytes(100))

    with pytest.raises(DamagedExport, match="use newer code"):
        check_whole(path)


async def test_a_file_without_a_day_that_is_not_over_is_refused(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    today = datetime.now(UTC).date()

    def early(frame: Frame) -> Frame:
        return Header(None, 0, b"") if isinstance(frame, Header) else GoneDay(today, None, None)

    with pytest.raises(ImportRefused, match=f"without the batches of {today}, and that day is not over"):
        await imported(target[0], forge(tmp_path / "log", early))


async def test_the_documented_format_is_enough_to_check_the_chain(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await some_log(connection, tables)
    out = await exported(dsn, tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    first_line, _, rest = data.partition(b"\n")
    length = int.from_bytes(data[-36:-32], "big")
    trailer = msgspec.msgpack.decode(data[-36 - length : -36])

    frames = []
    while len(rest) > 36:
        size = int.from_bytes(rest[:4], "big")
        frames.append(msgspec.msgpack.decode(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    chain = b""
    for frame in frames:
        if frame[0] == "batch":
            position, day, producer, *columns, digest, _, after, payload = frame[1:]
            assert sha256(payload).digest() == digest
            row = (chain, position, day, UUID(producer).bytes, *columns, digest)
            chain = sha256(msgspec.msgpack.encode(row)).digest()
            assert chain == after

    assert first_line == b"chancy-metrics export 1"
    assert sha256(data[:-32]).digest() == data[-32:]
    assert trailer == frames[-1]
    assert trailer[5] == sha256(data[: -36 - length - 4]).digest() == bytes.fromhex(out.content)
    assert frames[0] == ["header", None, 7, chain]
    assert chain == out.seal.chain


def a_chain(count: int) -> list[LedgerEntry]:
    """Return so many entries of one producer, one after the other."""
    entries, chain = [], b""
    producer = UUID(int=1)
    for number in range(1, count + 1):
        batch = encode((), [a_run("app:n", [float(number)])])
        row = LogRow(
            date(2026, 3, 10), producer, number, "w", batch.first_us, batch.last_us, NOON_US, 1, False, 1, batch.sha256
        )
        chain = link(chain, number, row)
        entries.append(LedgerEntry(number, BatchId(*row[:3]), 1, chain, row, batch.payload))
    return entries


def file_of(path: Path, entries: Sequence[LedgerEntry]) -> Path:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.put(Header(None, entries[-1].position, entries[-1].chain))
        for entry in entries:
            writer.put_entry(entry)
        writer.finish(NOON_US)
    return path


@given(st.data())
def test_whatever_byte_is_changed_or_wherever_it_is_cut_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = file_of(tmp_path_factory.mktemp("export") / "log", a_chain(3))
    good = path.read_bytes()
    check_whole(path)
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]

    for bad in (changed, good[:place], good + b"\0"):
        path.write_bytes(bad)
        with pytest.raises(DamagedExport):
            check_whole(path)


@given(
    position=st.integers(1, 6),
    field=st.sampled_from(["sequence", "worker", "first_us", "appended_us", "closes", "codec", "sha256", "day"]),
    size=st.integers(1, 4),
)
def test_whatever_column_is_forged_the_entries_before_it_are_the_last_that_come(
    tmp_path_factory: pytest.TempPathFactory, position: int, field: str, size: int
) -> None:
    entries = a_chain(6)
    row = entries[position - 1].row
    assert row is not None
    old = getattr(row, field)
    step = -1 if field == "first_us" else 1  # still before the last one: this is about the chain
    new = {int: lambda: old + step, str: lambda: old + "x", bytes: lambda: sha256(old).digest(), bool: lambda: not old}
    forged = row._replace(**{field: new.get(type(old), lambda: old + timedelta(days=1))()})
    entries[position - 1] = entries[position - 1]._replace(row=forged, batch_id=BatchId(*forged[:3]))
    path = file_of(tmp_path_factory.mktemp("export") / "log", entries)
    come = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chancy_metrics.events.transfer.check.PAGE", size)
        with pytest.raises(ImportRefused, match=f"position {position} of "):
            for chunk in checked_entries(read_frames(path), 0, b"", set(), path):
                come += chunk

    assert [place.position for place in come] == list(range(1, position))
