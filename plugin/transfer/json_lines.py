"""Encode events as lines of JSON from their columns, the same bytes as of events encoded one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.facts import Combo, Series
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.projections.search.columns import EventColumns, Matches, columns_of

#: Events of a page to encode: what they cost beside their number is shared by so many, 5 MB of lines.
JSON_PAGE_EVENTS = 10_000
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_EPOCH = date(1970, 1, 1)
#: Combos and series whose texts are kept from page to page.
_KNOWN = 2_000
#: The two digits of a number below 100, as one number; and a moment in such pairs, with NULs that keep digits together.
_DIGITS = np.array([f"{number:02}" for number in range(100)], "S2").view(np.uint16)
_MOMENT = np.frombuffer(b"yyyy-mm-ddT\0hh:\0mm:\0ss.\0ddddddZ\0", np.uint16)
_KINDS = ("job", "counter", "gauge", "histogram")
#: Where the hexadecimal digits of a UUID stand in its text, between the dashes.
_GROUPS = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))

#: A text of each row, as characters; NULs, which no JSON has, stand where one is shorter than others.
_Texts = NDArray[np.uint8]
_Ints = NDArray[np.int64]


def json_lines(found: Sequence[Matches]) -> bytes:
    """Return a line of JSON, UTF-8, for each event; b"" for none.

    What events share (batch, function, queue, state and error, or series) is encoded once. What each has of its own is
    short: it is written as columns of characters, in which NULs fill the gaps, and these are removed at the end.
    """
    if not found:
        return b""
    columns = columns_of(found)
    kinds = np.zeros(len(columns.batch), np.int64)
    observed = np.flatnonzero(~columns.is_job)
    kinds[observed] = np.array([_KINDS.index(one.kind) for one in columns.series], np.int64)[columns.run[observed]]
    heads = [f'{{"position":{batch.position},"index":'.encode() for batch in columns.batches]
    pieces = (
        [heads[number] for number in columns.batch.tolist()],
        _rows(len(kinds), _matrix(_numbers(columns.indexes)), b',"at":"', moment_texts(columns.at_us), b'","kind":'),
        _workers(columns, kinds),
        _rows(len(kinds), _where(columns.is_job, b',"job_id":"', uuid_texts(columns.ids.tobytes()), b'"')),
        _names(columns),
        _times(columns, observed),
        *_meta(columns),
        [b"}\n"] * len(kinds),
    )
    return b"".join(chain.from_iterable(zip(*pieces, strict=True))).translate(None, b"\0")


def moment_texts(us: _Ints) -> _Texts:
    """Return times as ISO 8601 in UTC, with microseconds where there are any, as msgspec does.

    Args:
        us: Microseconds since 1970, in the years 1 to 9999.
    """
    days, in_day_us = np.divmod(us, _DAY_US)
    seconds, micros = np.divmod(in_day_us, _SECOND_US)
    known, which = np.unique(days, return_inverse=True)
    dates = [(_EPOCH + timedelta(days=day)).isoformat().encode() for day in known.tolist()]
    pairs = np.empty((len(us), len(_MOMENT)), np.uint16)
    pairs[:] = _MOMENT
    pairs[:, :5] = np.array(dates, "S10").view(np.uint16).reshape(-1, 5)[which]
    pairs[:, 6] = _DIGITS[seconds // 3_600]
    pairs[:, 8] = _DIGITS[seconds // 60 % 60]
    pairs[:, 10] = _DIGITS[seconds % 60]
    pairs[:, 12] = _DIGITS[micros // 10_000]
    pairs[:, 13] = _DIGITS[micros // 100 % 100]
    pairs[:, 14] = _DIGITS[micros % 100]
    pairs[micros == 0, 11:15] = 0
    return pairs.view(np.uint8)


def uuid_texts(ids: bytes) -> _Texts:
    """Return UUIDs of 16 bytes each as texts of 36 characters."""
    digits = np.frombuffer(ids.hex().encode(), np.uint8).reshape(-1, 32)
    text = np.full((len(digits), 36), ord("-"), np.uint8)
    first = 0
    for start, end in _GROUPS:
        text[:, start:end] = digits[:, first : first + end - start]
        first += end - start
    return text


def _workers(columns: EventColumns, kinds: _Ints) -> list[bytes]:
    """Return kind, worker and producer of each event."""
    workers = [
        f',"worker":{json_line(batch.worker)},"producer":"{batch.producer}"'.encode() for batch in columns.batches
    ]
    texts = [f'"{kind}"'.encode() + worker for worker in workers for kind in _KINDS]
    return [texts[number] for number in (columns.batch * len(_KINDS) + kinds).tolist()]


def _names(columns: EventColumns) -> list[bytes]:
    """Return what each event shares with others: the fields of its combo, or its key and unit."""
    numbers = np.where(columns.is_job, columns.combo, len(columns.combos) + columns.run)
    names: list[Combo | Series] = [*columns.combos, *columns.series]
    texts = [b""] * len(names)
    for number in np.flatnonzero(np.bincount(numbers, minlength=len(names))).tolist():
        name = names[number]
        texts[number] = _combo(name) if isinstance(name, Combo) else _series(name)
    return [texts[number] for number in numbers.tolist()]


@lru_cache(_KNOWN)
def _combo(combo: Combo) -> bytes:
    func, queue, state, error = map(json_line, (combo.func, combo.queue, combo.state, combo.error))
    text = f',"func":{func},"queue":{queue},"state":{state},"attempt":{combo.attempt}'
    return (f'{text},"error":{error}' if combo.error else text).encode()


@lru_cache(_KNOWN)
def _series(series: Series) -> bytes:
    return f',"key":{json_line(series.key)},"unit":{json_line(series.unit)},"value":'.encode()


def _times(columns: EventColumns, observed: _Ints) -> list[bytes]:
    """Return the times and durations of each job update, and the value of each observation."""
    every = np.ones(len(columns.batch), np.bool_)
    times = (
        ("created_at", columns.created_us, every),
        ("scheduled_at", columns.scheduled_us, every),
        ("started_at", columns.started_us, columns.has_started),
        ("completed_at", columns.completed_us, columns.has_completed),
    )
    durations = (("run_s", columns.run_s, columns.has_run), ("wait_s", columns.wait_s, columns.has_wait))
    texts = _rows(
        len(every),
        *(_where(has, f',"{name}":"'.encode(), moment_texts(us), b'"') for name, us, has in times),
        *(_where(has, f',"{name}":'.encode(), _matrix(_numbers(seconds))) for name, seconds, has in durations),
    )
    for row, value in zip(observed.tolist(), _numbers(columns.values[observed]), strict=True):
        texts[row] = value
    return texts


def _meta(columns: EventColumns) -> Iterator[list[bytes]]:
    """Yield the kept meta and the damage of each event, where any has some."""
    for name, by_row in (("meta", columns.meta), ("damage", columns.damage)):
        if by_row:
            texts = [b""] * len(columns.batch)
            for row, value in by_row.items():
                if value:
                    texts[row] = f',"{name}":{json_line(value)}'.encode()
            yield texts


def _numbers(values: NDArray[Any]) -> list[bytes]:
    return msgspec.json.encode(values.tolist())[1:-1].split(b",") if len(values) else []


def _matrix(texts: Sequence[bytes]) -> _Texts:
    return np.array(texts, np.bytes_).view(np.uint8).reshape(len(texts), -1)


def _where(has: NDArray[np.bool_], *parts: bytes | _Texts) -> _Texts:
    """Join parts of each row's text; nothing remains of the rows that have none."""
    return _join(len(has), parts) * has[:, np.newaxis]


def _join(rows: int, parts: Sequence[bytes | _Texts]) -> _Texts:
    return np.concatenate(
        [
            np.broadcast_to(np.frombuffer(part, np.uint8), (rows, len(part))) if isinstance(part, bytes) else part
            for part in parts
        ],
        axis=1,
    )


def _rows(rows: int, *parts: bytes | _Texts) -> list[bytes]:
    """Join parts of each row's text; NULs stay between them."""
    joined = _join(rows, parts)
    return joined.view(f"S{joined.shape[1]}").ravel().tolist()
