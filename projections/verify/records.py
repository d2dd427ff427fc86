"""Read and write the records of verify and audit check, one JSON value in each version's row."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from psycopg import sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.decoding import decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.verify.coverage import Record
from chancy_metrics.projections.versions.version import BASELINE


class RebuildCompared(msgspec.Struct, frozen=True):
    """What a rebuild found when it compared the new version with *version*, both at *position*."""

    version: int
    at: datetime
    position: int
    points: int
    different: int


class LastChecked(msgspec.Struct, frozen=True):
    """What the last `audit check` came to.

    Attributes:
        at: When it began, UTC.
        first: First position that it checked; *position* is the last.
        found: How many findings it had, *given_up* of them of batches that were discarded by then.
        sentences: The first ones of the others.
    """

    at: datetime
    first: int
    position: int
    batches: int
    found: int
    given_up: int
    sentences: list[str]


class Stored(Record, frozen=True, forbid_unknown_fields=True):
    """A `Record` as it is kept; `checked` and `totals_at` in that of the log.

    Attributes:
        totals_at: When a run of verify compared the totals last.
    """

    rebuilt: RebuildCompared | None = None
    checked: LastChecked | None = None
    totals_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


_decoder = msgspec.json.Decoder(Stored)


async def read_open_positions(cursor: Cursor, tables: Tables) -> set[int]:
    """Return the positions of the ledger at which something is open."""
    records = await read_records(cursor, tables)
    return {
        fault.at
        for fault in records.get(BASELINE, Stored()).faults
        if fault.scale == "position" and fault.at is not None
    }


async def read_unreadable(cursor: Cursor, tables: Tables) -> list[str]:
    """Say which records can't be read, and why, a sentence each."""
    _, unreadable = await _read_all(cursor, tables)
    return unreadable


async def read_records(cursor: Cursor, tables: Tables) -> dict[int, Stored]:
    """Return every record; one that can't be read is empty, and the next run that writes it replaces it."""
    records, _ = await _read_all(cursor, tables)
    return records


async def _read_all(cursor: Cursor, tables: Tables) -> tuple[dict[int, Stored], list[str]]:
    """Return every record, and of those that can't be read why, a sentence each."""
    await cursor.execute(
        sql.SQL("SELECT version, verified::text FROM {versions} WHERE verified IS NOT NULL ORDER BY version").format(
            versions=tables.versions
        )
    )
    records, unreadable = {}, []
    for version, text in await cursor.fetchall():
        try:
            records[version] = decode_record(
                text, f"what verify kept of {f'version {version}' if version else 'the log'}"
            )
        except Damaged as error:
            records[version] = Stored()
            unreadable.append(f"{error}: run `chancy-metrics verify`, which replaces it")
    return records, unreadable


def decode_record(text: str, where: str = "") -> Stored:
    """Decode a record from the text of its JSON.

    Raises:
        Damaged: It is something else.
    """
    return decode_as(_decoder, text.encode(), "record of verify", where)


async def write_record(cursor: Cursor, tables: Tables, version: int, record: Stored) -> None:
    await cursor.execute(
        sql.SQL("UPDATE {versions} SET verified = %(verified)s WHERE version = %(version)s").format(
            versions=tables.versions
        ),
        {"verified": Jsonb(msgspec.to_builtins(record)), "version": version},
    )
