"""Read dates and times that Python can't hold, such as infinity, as the first or last one that it can."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from psycopg import DataError
from psycopg.abc import Buffer
from psycopg.types.datetime import DateBinaryLoader, DateLoader, TimestamptzBinaryLoader, TimestamptzLoader

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class _BinaryDay(DateBinaryLoader):
    def load(self, data: Buffer) -> date:
        try:
            return super().load(data)
        except DataError:
            return date.min if bytes(data)[0] & 0x80 else date.max


class _BinaryMoment(TimestamptzBinaryLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except (DataError, OverflowError):
            return _EARLIEST if bytes(data)[0] & 0x80 else _LATEST


class _Day(DateLoader):
    def load(self, data: Buffer) -> date:
        try:
            return super().load(data)
        except DataError:
            return date.min if _is_early(data) else date.max


class _Moment(TimestamptzLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except (DataError, OverflowError):
            return _EARLIEST if _is_early(data) else _LATEST


def _is_early(data: Buffer) -> bool:
    text = bytes(data)
    return text.startswith(b"-") or text.endswith(b"BC")


def read_infinite_times(cursor: Any) -> None:
    """Let *cursor*, synchronous or not, read such dates and times: clocks give none, but people may write them."""
    for name, loaders in (("date", (_Day, _BinaryDay)), ("timestamptz", (_Moment, _BinaryMoment))):
        for loader in loaders:
            cursor.adapters.register_loader(name, loader)
