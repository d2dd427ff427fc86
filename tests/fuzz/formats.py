"""Each stored format: valid bytes of it, and all that is done with bytes that may be of it."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np

from chancy_metrics.events.batch import LogBatch
from chancy_metrics.events.chain import read_seals
from chancy_metrics.events.codec import CODEC, decode, encode
from chancy_metrics.events.errors import DamagedBatch, MetricsLogError
from chancy_metrics.events.facts import EPOCH
from chancy_metrics.events.kept_meta import decode_meta, encode_meta
from chancy_metrics.events.transfer.file import check_whole
from chancy_metrics.events.transfer.frames import Trailer
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.reading.columns import KEPT, put, rows_of
from chancy_metrics.plugin.transfer.arrow_tables import as_table
from chancy_metrics.plugin.transfer.cursor_file import CursorFile
from chancy_metrics.plugin.transfer.import_check import ExportContents
from chancy_metrics.plugin.transfer.json_lines import json_lines
from chancy_metrics.plugin.transfer.parquet import ParquetFolder
from chancy_metrics.projections.fold.cell_codec import DEFLATED, PLAIN, decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import starts_of_runs
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.sketch import quantile_many
from chancy_metrics.projections.fold.sketch_codec import decode as decode_sketch
from chancy_metrics.projections.fold.sketch_codec import encode as encode_sketch
from chancy_metrics.projections.rollups.delta_ring import COLUMNS, ChangedPoints, pack_points, unpack_points
from chancy_metrics.projections.search.columns import Matches, columns_of
from chancy_metrics.projections.search.event import to_events
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.verify.coverage import Fault, Seen
from chancy_metrics.projections.verify.records import Stored, decode_record
from chancy_metrics.projections.versions.counts import decode_counts
from tests.factories import NOON_US, a_row, a_run
from tests.fuzz.mutate import mutate_bytes, mutate_tree
from tests.plugin.transfer.test_import_refused import frames_of, prologue, write
from tests.projections.fold.test_cell_codec import golden_cells

MAGIC = b"chancy-metrics export 1\n"
CORPUS = Path(__file__).parent.parent / "corpus"
_SEAL = f"chancy-metrics-seal 1 position=7 hash={'9f' * 32} at=2026-11-25T09:41:00Z\n".encode()
_FOLDER = Path(tempfile.mkdtemp(prefix="chancy-metrics-fuzz-"))


class Format(NamedTuple):
    """One format.

    Attributes:
        valid: Bytes that can be read.
        read: Reads bytes as everybody does who finds them; raises `MetricsLogError` for those that are damaged.
        mutate: Makes other bytes of valid ones.
    """

    valid: list[bytes]
    read: Callable[[bytes], object]
    mutate: Callable[[Random, bytes, list[bytes]], bytes]


def as_message(chance: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change a MessagePack message as a tree, mostly; bit by bit otherwise."""
    if not chance.randrange(4):
        return mutate_bytes(chance, data, others)
    tree = mutate_tree(chance, msgspec.msgpack.decode(data, strict=False))
    try:
        return msgspec.msgpack.encode(tree)
    except (TypeError, ValueError, OverflowError):
        return mutate_bytes(chance, data, others)


def as_run(chance: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change the columns of a run of cells, inflated before and deflated again after it, mostly."""
    if not chance.randrange(8):
        return mutate_bytes(chance, data, others)
    form, body = data[:1], data[1:]
    if form[0] == DEFLATED:
        body = zlib.decompress(body)
    bodies = [other[1:] for other in others if other[0] == PLAIN]
    body = as_message(chance, body, bodies)
    return form + (zlib.compress(body, 1) if form[0] == DEFLATED else body)


def as_export(chance: Random, data: bytes, others: list[bytes]) -> bytes:
    """Change the frames of an export and make its lengths, hashes and digest right again, mostly."""
    if not chance.randrange(4):
        return mutate_bytes(chance, data, others)
    frames, rest = [], data[len(MAGIC) : -36]
    while rest:
        size = int.from_bytes(rest[:4], "big")
        frames.append(msgspec.msgpack.decode(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    frames.pop()
    for _ in range(chance.randint(1, 2)):
        here = chance.randrange(len(frames))
        way = chance.randrange(5)
        if way < 3:
            frames[here] = mutate_tree(chance, frames[here])
        elif way == 3:
            frames.insert(chance.randrange(len(frames)), frames[here])
        else:
            del frames[here]
            if not frames:
                return MAGIC
    if chance.randrange(4):
        _link(frames)
    made = MAGIC
    for frame in frames:
        try:
            encoded = msgspec.msgpack.encode(frame)
        except (TypeError, ValueError, OverflowError):
            continue
        made += len(encoded).to_bytes(4, "big") + encoded
    trailer = msgspec.msgpack.encode(Trailer(NOON_US, len(frames), 0, 0, sha256(made).digest()))
    made += len(trailer).to_bytes(4, "big") + trailer + len(trailer).to_bytes(4, "big")
    return made + sha256(made).digest()


def _link(frames: list[Any]) -> None:
    """Let the hashes of batches cover what was changed in them, as somebody would who knows the format."""
    chain = b""
    for number, frame in enumerate(frames):
        if not (isinstance(frame, list) and len(frame) == 16 and frame[0] == "batch" and isinstance(frame[15], bytes)):
            continue
        frame = [*frame[:12], sha256(frame[15]).digest(), *frame[13:]]
        position, day, producer, *columns = frame[1:12]
        try:
            row = (chain, position, day, UUID(producer).bytes, *columns, frame[12])
            chain = sha256(msgspec.msgpack.encode(row)).digest()
        except (TypeError, ValueError, OverflowError, AttributeError):
            continue
        frames[number] = [*frame[:14], chain, frame[15]]
    if isinstance(frames[0], list) and len(frames[0]) == 4:
        frames[0] = [*frames[0][:3], chain]


def read_batch(data: bytes) -> None:
    digest = sha256(data).digest()
    events = 0
    try:
        decode(CODEC, data, digest, events)
    except DamagedBatch as error:
        found = str(error).split(" events, its row says")[0].rpartition(" ")[2]
        if not found.isdigit():
            raise
        events = int(found)
    decoded = decode(CODEC, data, digest, events)
    batch = LogBatch(1, UUID(int=1), 1, "worker", NOON_US, events, CODEC, data, digest)
    listed = [Matches(batch, decoded, np.arange(min(events, 2_000))).with_meta()] if events else []
    lines = json_lines(listed).splitlines()
    for event, line in zip(to_events(listed), lines, strict=True):
        if json.loads(line) != json.loads(json_line(event)):
            raise AssertionError(f"{line!r} is not {event}")
        json.loads(msgspec.json.encode(event))
    if listed:
        as_table(columns_of(listed)).validate(full=True)
    if decoded.jobs is not None:
        list(decoded.jobs.kept_meta())
        decoded.jobs.meta_faults()
    fold([batch])


def read_export(data: bytes) -> None:
    path = _FOLDER / "export"
    path.write_bytes(data)
    check_whole(path)
    ExportContents(path).check()


def read_ring(data: bytes) -> None:
    for points in unpack_points(data).values():
        for kind in KEPT:
            if len(points.bucket):
                put(None, rows_of(kind, points.bucket, points.values))


def read_run(data: bytes) -> None:
    cells = decode_runs([data], [1])
    ends = np.array([0, cells.rows])
    assert decode_runs(encode_runs(cells, ends), [1]).rows == cells.rows


def read_sketch(data: bytes) -> None:
    codes, counts = decode_sketch(data)
    ends, one = np.array([0, len(codes)]), np.ones(1)
    quantile_many(
        ends, np.array(codes, np.int64), np.array(counts, np.int64), (95, 100), -one, one, np.array([sum(counts)])
    )


def read_cursor(data: bytes) -> None:
    path = _FOLDER / "cursor"
    path.write_bytes(data)
    CursorFile(path).read()


def read_folder_state(data: bytes) -> None:
    (_FOLDER / "parquet").mkdir(exist_ok=True)
    (_FOLDER / "parquet" / "_cursor.json").write_bytes(data)
    with ParquetFolder(_FOLDER / "parquet", EventQuery()):
        pass


def read_counts(data: bytes) -> None:
    decode_counts(data.decode(errors="replace"))


def read_record(data: bytes) -> None:
    record = decode_record(data.decode(errors="replace"))
    record.open, [str(fault) for fault in record.faults]


def read_seal(data: bytes) -> None:
    for seal in read_seals(data.decode(errors="replace").splitlines(), "seals"):
        f"{seal} {seal.at:%Y-%m-%d %H:%M:%S %Z}"


def read_meta(data: bytes) -> None:
    json.loads(json_line(decode_meta(data)))


def _batches() -> list[bytes]:
    rows = [
        a_row(NOON_US + number, func=f"f{number % 3}", state=state, meta=encode_meta({"customer": number}))
        for number, state in enumerate(["succeeded", "failed", "retrying"] * 2)
    ]
    rows.append(a_row(NOON_US, started_us=None, completed_us=None))
    runs = [a_run("app:n", [1.0, 2.5]), a_run("app:size", [1e300, -3.0], kind="histogram", unit="B")]
    runs.append(a_run("app:level", [7.0], kind="gauge", unit="slots"))
    return [
        encode(rows).payload,
        encode((), runs).payload,
        encode(rows, runs, {"dropped": 3}).payload,
        encode().payload,
    ]


def _exports() -> list[bytes]:
    made = [frames_of(), frames_of(*prologue()), frames_of(*prologue(gone=(date(2026, 3, 8), date(2026, 3, 9))))]
    return [write(_FOLDER / "valid", frames).read_bytes() for frames in made]


def _ring() -> list[bytes]:
    points = ChangedPoints(
        np.arange(3, dtype=np.int32), np.full(3, NOON_US // 60_000_000 * 60), np.ones((3, len(COLUMNS)))
    )
    return [pack_points({}), pack_points({"1min": points, "1day": points})]


def _runs() -> list[bytes]:
    cells = golden_cells()
    job = fold([LogBatch(1, UUID(int=1), 1, "worker", NOON_US, 7, CODEC, *_payload_and_hash())]).cells["1min"]
    starts = np.append(starts_of_runs(job.worker), job.rows)
    made = encode_runs(cells, np.array([0, cells.rows])) + encode_runs(job, starts)
    return made + encode_runs(cells, np.array([0, cells.rows]), compressed=True)


def _payload_and_hash() -> tuple[bytes, bytes]:
    payload = _batches()[0]
    return payload, sha256(payload).digest()


_RECORD = Stored(
    at=EPOCH, points=7, seen={"1min": [Seen(0, 60, 7)]}, faults=[Fault("cache", "1min", 60, 2, EPOCH, "it differs")]
)

FORMATS: dict[str, Format] = {
    "batch": Format(_batches(), read_batch, as_message),
    "export": Format(_exports(), read_export, as_export),
    "ring": Format(_ring(), read_ring, as_message),
    "run": Format(_runs(), read_run, as_run),
    "sketch": Format([encode_sketch([1, 2, 9], [3, 4, 1]), encode_sketch([-5], [2**40])], read_sketch, as_message),
    "meta": Format([encode_meta({"a": [1, {"b": None}], "c": "x", "d": 1.5}), encode_meta({})], read_meta, as_message),
    "cursor": Format([b"1234:5\n", b"7\n"], read_cursor, mutate_bytes),
    "folder": Format([b'{"query":{},"cursor":"7:1"}\n'], read_folder_state, mutate_bytes),
    "counts": Format([b'{"dropped": 3, "rejected:key": 1}'], read_counts, mutate_bytes),
    "record": Format([msgspec.json.encode(_RECORD)], read_record, mutate_bytes),
    "seal": Format(
        [f"chancy-metrics-seal 1 position=7 hash={'9f' * 32} at=2026-11-25T09:41:00Z\n".encode()],
        read_seal,
        mutate_bytes,
    ),
}


def fault(name: str, data: bytes) -> BaseException | None:
    """What reading *data* raises that it should not; None where it is read, or refused as it should be."""
    try:
        FORMATS[name].read(data)
    except MetricsLogError as error:
        return None if 0 < len(str(error)) < 2_000 else error
    except (Exception, RecursionError, MemoryError) as error:
        return error
    return None


def mutant(chance: Random, name: str) -> bytes:
    """Bytes that are nearly of a format."""
    of = FORMATS[name]
    return of.mutate(chance, chance.choice(of.valid), of.valid)


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())
