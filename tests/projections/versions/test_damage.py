"""A damaged log loses what is damaged and nothing else, and says so."""

from __future__ import annotations

from hashlib import sha256

from chancy_metrics.events.batch import EncodedBatch
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.replay import replay, stored
from tests.factories import LogWriter, a_run, damage, fetch, sequence_all, sequence_and_fold, total

CODEC_OF_TOMORROW = 7


async def dead_letters(connection: Connection, tables: Tables) -> list[tuple[int, str]]:
    rows = await fetch(connection, "SELECT position, error FROM {dead_letters} ORDER BY position", tables)
    return [(row[0], row[1]) for row in rows]


async def test_garbage_gets_a_dead_letter_and_what_lies_around_it_counts(
    connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    good = encode((), [a_run("app:n")])
    garbage = b"\xc1 garbage"
    await writer.append(batch=good)
    await writer.append(batch=good._replace(payload=garbage, sha256=sha256(garbage).digest()))
    await writer.append(batch=good._replace(payload=good.payload + b"\x00"))
    await writer.append(batch=good._replace(events=2))
    await writer.append(batch=good)

    await sequence_and_fold(connection, tables)

    letters = await dead_letters(connection, tables)
    assert [position for position, _ in letters] == [2, 3, 4]
    assert "no batch of codec 1" in letters[0][1]
    assert "does not match its sha256" in letters[1][1]
    assert "holds 1 events, its row says 2" in letters[2][1]
    assert await total(connection, tables, "app:n") == [2] * 4
    assert diff(await stored(connection, tables), await replay(connection, tables)) == []


async def test_a_row_that_is_not_in_the_log_gets_a_dead_letter(connection: Connection, tables: Tables) -> None:
    for _ in range(3):
        await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_all(connection, tables)
    await damage(
        connection, tables, "DELETE FROM {log} WHERE producer = (SELECT producer FROM {ledger} WHERE position = 2)"
    )

    await sequence_and_fold(connection, tables)

    assert await dead_letters(connection, tables) == [(2, "its row is not in the log")]
    assert await total(connection, tables, "app:n") == [2] * 4


async def test_a_row_removed_by_force_after_the_fold_shows_in_the_replay(
    connection: Connection, tables: Tables
) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    await damage(connection, tables, "DELETE FROM {log}")

    found = diff(await stored(connection, tables), await replay(connection, tables))
    assert len(found) == 8  # four resolutions, of the worker and of all
    assert "only in the old" in str(found[0])


async def test_a_codec_of_newer_code_waits_ten_minutes_and_is_then_left_out(
    connection: Connection, tables: Tables
) -> None:
    newer: EncodedBatch = encode((), [a_run("app:n")])._replace(codec=CODEC_OF_TOMORROW)
    for batch in (encode((), [a_run("app:n")]), newer, encode((), [a_run("app:n")])):
        await LogWriter(connection, tables).append(batch=batch)
    await sequence_all(connection, tables)

    first, waiting = [await advance(connection, tables, folded_by="f") for _ in range(2)]
    await damage(connection, tables, "UPDATE {log} SET appended_at = appended_at - interval '601 s' WHERE codec = 7")
    last = await advance(connection, tables, folded_by="f")

    assert (first.events, first.position) == (1, 1)
    assert (waiting.events, waiting.reason) == (0, "position 2 waits for a worker with newer code")
    assert last.position == 3
    assert [position for position, _ in await dead_letters(connection, tables)] == [2]
    assert await total(connection, tables, "app:n") == [2] * 4
