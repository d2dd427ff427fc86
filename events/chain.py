"""The hash chain over the ledger, and seals: each hash covers the previous one and every column of its batch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
from psycopg import sql

from chancy_metrics.events.batch import LogRow
from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import NO_HEAD, Damaged, MetricsLogError, SchemaMissing
from chancy_metrics.events.schema import Tables

_encoder = msgspec.msgpack.Encoder()

_WORD = "chancy-metrics-seal"
_LINE = re.compile(rf"{_WORD} 1 position=(\d{{1,19}}) hash=([0-9a-f]{{64}}|-) at=(\S{{1,64}})", re.ASCII)


class Seal(msgspec.Struct, frozen=True, order=True):
    """The end of the ledger at one moment: proves later that the history up to there is unchanged.

    Attributes:
        chain: Hash at *position*; b"" at position 0.
        at: When it was read, by the database's clock, UTC.
    """

    position: int
    chain: bytes
    at: datetime

    def __str__(self) -> str:
        """Format the seal as one line, which `read_seals` reads."""
        at = self.at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()
        return f"{_WORD} 1 position={self.position} hash={self.chain.hex() or '-'} at={at}Z"


def link(previous: bytes, position: int, row: LogRow) -> bytes:
    """Return the hash at *position*: sha256 over the MessagePack array of the previous hash and every column."""
    return sha256(_encoder.encode((previous, position, row.day.isoformat(), row.producer.bytes, *row[2:]))).digest()


def chain_fault(before: bytes, position: int, row: LogRow, chain: bytes) -> str:
    """Return what is wrong with the hash at *position*; "" if it covers the row and the previous hash, *before*."""
    if link(before, position, row) == chain:
        return ""
    return "its hash does not cover its row in the log and the hash before it"


def payload_fault(row: LogRow, payload: bytes) -> str:
    """Return what is wrong with a payload; "" if it matches the sha256 of its row."""
    if sha256(payload).digest() == row.sha256:
        return ""
    return "the payload does not match its sha256: it was changed after it was appended"


def read_seals(lines: Iterable[str], source: str) -> list[Seal]:
    """Return the seals in *lines*, one a line, in order of position; other text may precede each.

    Args:
        source: Where the lines come from, for error messages.

    Raises:
        Damaged: A line holds no seal, or one of an unknown format; or no line holds one.
    """
    seals = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.search(line)
        if found is None:
            raise Damaged(
                f"is no seal this code can read: {line.strip()[:100]!r}; `chancy-metrics audit seal` prints lines "
                f"that begin with `{_WORD} 1`",
                where=f"line {number} of {source}",
                kind="seal",
            )
        position, chain, at = found.groups()
        seals.append(_read_seal(position, chain, at, f"line {number} of {source}"))
    if not seals:
        raise Damaged("holds no seal; `chancy-metrics audit seal` prints one", where=source, kind="seal")
    return sorted(seals)


def _read_seal(position: str, chain: str, at: str, where: str) -> Seal:
    try:
        moment = datetime.fromisoformat(at)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Damaged(f"has no time: {at!r}", where=where, kind="seal") from error
    if int(position) >= 2**63 or (int(position) == 0) != (chain == "-"):
        raise Damaged(f"has hash {chain} at position {position}, as no log has", where=where, kind="seal")
    return Seal(int(position), b"" if chain == "-" else bytes.fromhex(chain), moment)


async def read_seal(cursor: Cursor, tables: Tables) -> Seal:
    """Return the end of the ledger, read in the caller's transaction.

    Raises:
        SchemaMissing: The log has no head.
        MetricsLogError: Head and ledger disagree.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT h.position, h.chain, clock_timestamp(), o.chain, (SELECT max(position) FROM {ledger})
            FROM {head} h
            LEFT JOIN {ledger} o
                ON o.position = h.position
            """
        ).format(head=tables.head, ledger=tables.ledger)
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(NO_HEAD)
    position, chain, at, in_ledger, last = row
    if (last or 0) != position or (position and in_ledger != chain):
        raise MetricsLogError(
            f"the head says that the ledger ends at position {position}, its rows say otherwise: no seal is "
            "made before `chancy-metrics audit check` finds nothing"
        )
    return Seal(position, bytes(chain), at.astimezone(UTC))
