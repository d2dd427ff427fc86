"""Who may append can stop and hide nothing, whatever it writes with what docs/roles.md grants."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import psycopg
import pytest

from chancy_metrics.events.batch import BatchId, EncodedBatch
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.health.verify import verify
from tests.end_to_end.test_roles import recorder, today
from tests.factories import LogWriter, a_run, an_app, fetch, now_us, sequence_and_fold, total

__all__ = ["recorder"]

ID = "day, producer, sequence"
BATCH = f"{ID}, worker, first_us, last_us, events, closes, codec, payload, sha256"
SESSION = "session, worker, producers, append_interval, ended_at, held, fold_error"


class Odd(NamedTuple):
    """A row as its columns' values in SQL; what is not named is ordinary."""

    table: str
    columns: dict[str, str]


def odd(table: str, **columns: str) -> Odd:
    return Odd(table, columns)


#: The log's days are UTC's, whatever the session's time zone.
UTC_TODAY = "(now() AT TIME ZONE 'UTC')::date"
ORDINARY = {
    "day": UTC_TODAY,
    "producer": "gen_random_uuid()",
    "sequence": "1",
    "worker": "'w'",
    "first_us": "1",
    "last_us": "1",
    "events": "1",
    "closes": "true",
    "codec": "1",
    "payload": "'x'",
    "sha256": "sha256('x')",
    "session": "gen_random_uuid()",
    "producers": "'{}'",
    "append_interval": "1",
    "ended_at": "NULL",
    "held": "NULL",
    "fold_error": "NULL",
}
COLUMNS = {"pending": ID, "log": BATCH, "spill": BATCH, "sessions": SESSION}
#: Rows that no batch and no session has: refused.
REFUSED = [
    *(
        odd(table, **columns)
        for table in ("pending", "log", "spill")
        for columns in (
            {"day": "'infinity'"},
            {"day": "'-infinity'"},
            {"day": "'12000-01-01'"},
            {"day": "'0044-03-15 BC'"},
            {"day": "'2200-01-01'"},
            {"sequence": "9223372036854775807"},
            {"sequence": "0"},
            {"sequence": "-1"},
        )
    ),
    *(
        odd(table, **columns)
        for table in ("log", "spill")
        for columns in (
            {"worker": "repeat('w', 2000)"},
            {"events": "-1"},
            {"codec": "-1"},
            {"codec": "32767"},
            {"sha256": "decode(repeat('00', 33), 'hex')"},
            {"first_us": "-9223372036854775808"},
            {"last_us": "9223372036854775807"},
            {"first_us": "2", "last_us": "1"},
        )
    ),
    odd("sessions", ended_at="'infinity'"),
    odd("sessions", ended_at="'12000-01-01'"),
    odd("sessions", append_interval="'NaN'"),
    odd("sessions", append_interval="-1"),
    odd("sessions", append_interval="'infinity'"),
    odd("sessions", worker="repeat('w', 2000)"),
    odd("sessions", fold_error="repeat('e', 20000)"),
    odd("sessions", held="to_jsonb(repeat('h', 20000))"),
    odd("sessions", producers="array_fill(gen_random_uuid(), ARRAY[10001])"),
]


async def insert(connection: Connection, tables: Tables, row: Odd) -> None:
    columns = COLUMNS[row.table]
    values = ", ".join((ORDINARY | row.columns)[name] for name in columns.split(", "))
    values = values.replace("{", "{{").replace("}", "}}")
    await fetch(connection, f"INSERT INTO {{{row.table}}} ({columns}) VALUES ({values})", tables)


async def test_a_row_that_no_recorder_writes_is_refused(recorder: Connection, tables: Tables) -> None:
    for row in REFUSED:
        with pytest.raises(psycopg.errors.CheckViolation):
            await insert(recorder, tables, row)
            raise AssertionError(row)

    async with short_transaction(recorder) as cursor:
        batch = encode((), [a_run()])._replace(first_us=2**60)
        with pytest.raises(psycopg.errors.CheckViolation, match="nor did the spill table"):
            await append(cursor, tables, BatchId(today(), uuid.uuid4(), 1), batch, worker="w")


async def surfaces(dsn: str) -> tuple[list[str], int, list[str]]:
    """What status, completeness, audit check and verify say: reasons, batches that wait, findings."""
    async with an_app(dsn) as (chancy, _):
        status = await read_status(chancy)
        whole = await completeness(chancy)
        checked = await check(chancy)
        verified = await verify(chancy)
    assert verified.different == 0
    return status.unhealthy, whole.waiting, [one.check for one in checked.findings]


async def test_nothing_that_is_taken_from_a_recorder_stops_the_order_or_hides_a_batch(
    dsn: str, roles: tuple[str, ...], recorder: Connection, connection: Connection, tables: Tables
) -> None:
    at = now_us() - 1_000_000
    honest = LogWriter(connection, tables)
    await honest.append(runs=[a_run("app:n", at_us=at)])
    await sequence_and_fold(connection, tables)
    mine = {"producer": f"'{honest.producer}'"}
    # Entries for batches that do not exist: of nobody, of the honest producer's next and last, and one twice.
    for columns in (
        {"sequence": "7"},
        {"day": "'2199-12-31'"},
        {"day": "'1970-01-01'"},
        {"sequence": str(2**53 - 1)},
        {"sequence": "2"} | mine,
        {"sequence": "2", "day": f"{UTC_TODAY} + 1"} | mine,
        {"sequence": "2"} | mine,
        {"sequence": "1"} | mine,
    ):
        await insert(recorder, tables, odd("pending", **columns))
    retried = honest.next_id()
    batch = encode((), [a_run("app:n", at_us=at)])
    async with short_transaction(connection) as cursor:
        appended = await append(cursor, tables, retried, batch, worker="worker", earlier=batch.sha256)
    assert appended.state == "appended"  # and not taken for known
    await sequence_and_fold(connection, tables)
    # The next id of the honest producer, with other content: under another day, spilled, and closing.
    await taken(recorder, tables, honest, day=f"{UTC_TODAY} + 1")
    await honest.append(runs=[a_run("app:n", at_us=at)])
    await sequence_and_fold(connection, tables)
    spilled = odd("spill", sequence=str(honest.sequence + 1), **mine, **content(encode((), [a_run("other")])))
    await insert(recorder, tables, spilled)
    await honest.append(runs=[a_run("app:n", at_us=at)])
    await sequence_and_fold(connection, tables)

    reasons, waiting, findings = await surfaces(dsn)

    assert await total(connection, tables, "app:n") == [4] * 4
    assert await total(connection, tables, "other") == [2] * 4  # it is in the log, so it counts
    assert waiting == 0
    assert len(reasons) == 1 and reasons[0].startswith("5 entries that waited for a position were set aside"), reasons
    assert findings == ["pending"] * 5
    [(holes,)] = await fetch(connection, "SELECT sum(holes)::integer FROM {producers}", tables)
    assert holes == 0


async def taken(connection: Connection, tables: Tables, writer: LogWriter, *, day: str) -> None:
    """Append other content under the id *writer* will take next."""
    batch = encode((), [a_run("other")])
    where = {"day": day, "producer": f"'{writer.producer}'", "sequence": str(writer.sequence + 1)}
    await insert(connection, tables, odd("log", **where, **content(batch)))
    await insert(connection, tables, odd("pending", **where))


def content(batch: EncodedBatch) -> dict[str, str]:
    return {
        "first_us": str(batch.first_us),
        "last_us": str(batch.last_us),
        "events": str(batch.events),
        "payload": f"'\\x{batch.payload.hex()}'",
        "sha256": f"'\\x{batch.sha256.hex()}'",
    }


async def test_batches_a_recorder_can_write_are_left_out_alone_where_they_can_t_be_read(
    dsn: str, recorder: Connection, connection: Connection, tables: Tables
) -> None:
    at = now_us() - 1_000_000
    for number in range(1_500):  # as many as would make the sum of holes too large for 64 bits
        producer = f"'{uuid.UUID(int=number)}'"
        if number < 3:
            await insert(recorder, tables, odd("log", producer=producer, sequence=str(2**53 - 1), closes="false"))
            await insert(recorder, tables, odd("pending", producer=producer, sequence=str(2**53 - 1)))
    await fetch(
        connection,
        "INSERT INTO {producers} SELECT gen_random_uuid(), 'w', 9007199254740991, true, 9007199254740990, now()"
        " FROM generate_series(1, 1500)",
        tables,
    )
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=at)])
    await sequence_and_fold(connection, tables)

    reasons, waiting, findings = await surfaces(dsn)

    assert await total(connection, tables, "app:n") == [1] * 4
    assert waiting == 0
    assert any(reason.startswith("3 batches could not be folded") for reason in reasons), reasons
    assert "payload" in findings


async def test_a_session_is_told_by_the_role_that_began_it_alone(
    recorder: Connection, connection: Connection, tables: Tables, dsn: str
) -> None:
    await fetch(
        connection,
        "INSERT INTO {sessions} (session, worker, producers, append_interval, seen_at)"
        " VALUES (gen_random_uuid(), 'killed', '{{}}', 1, now() - interval '1 hour')",
        tables,
    )
    await insert(recorder, tables, odd("sessions", worker="'mine'"))

    for change in ("ended_at = now(), held = NULL", "seen_at = now()", "producers = '{{}}'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="the role that began a session"):
            await fetch(recorder, f"UPDATE {{sessions}} SET {change}", tables)
    [(mine,)] = await fetch(connection, "SELECT session FROM {sessions} WHERE worker = 'mine'", tables)
    await fetch(recorder, "UPDATE {sessions} SET ended_at = now() WHERE session = %(mine)s", tables, mine=mine)

    async with an_app(dsn) as (chancy, _):
        whole = await completeness(chancy)
    assert whole.ended_uncleanly == 1


async def test_rows_that_were_there_before_the_bounds_are_set_aside(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await connection.execute("DROP VIEW chancy_metrics_pipeline")  # it reads these columns
    for table in ("pending", "spill"):
        await fetch(connection, f"ALTER TABLE {{{table}}} ALTER day TYPE date, ALTER sequence TYPE bigint", tables)
        for day in ("'infinity'", "'12000-01-01'", "'0044-03-15 BC'"):
            await insert(connection, tables, odd(table, day=day))
    await insert(connection, tables, odd("pending", sequence="9223372036854775807"))
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us() - 1_000_000)])
    before = await surfaces_before(dsn)
    await sequence_and_fold(connection, tables)

    reasons, waiting, findings = await surfaces(dsn)

    assert before[0].startswith("3 entries")
    assert await total(connection, tables, "app:n") == [1] * 4
    assert waiting == 0
    assert reasons[0].startswith("7 entries that waited for a position were set aside"), reasons
    assert findings == ["pending"] * 7


async def surfaces_before(dsn: str) -> list[str]:
    async with an_app(dsn) as (chancy, _):
        return (await read_status(chancy)).unhealthy
