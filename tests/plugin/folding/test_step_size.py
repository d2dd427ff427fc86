"""A step that takes too long, or too much, is tried smaller; what fails all the same is for `status` to say."""

from __future__ import annotations

import pytest
from psycopg import errors

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.folding import step_size
from chancy_metrics.plugin.folding.projector import Projector, fold_all
from chancy_metrics.plugin.health.status_reader import read_status
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.recording.session_row import SessionRow
from tests.factories import LogWriter, a_run, an_app, fetch, now_us, total

BATCHES = 8
SERIES = 20


async def cancels_more_than(connection: Connection, tables: Tables, rows: int, error: str) -> None:
    """Let the database cancel each statement that inserts more than so many rows into the finest rollup."""
    await connection.execute(
        f"""
        CREATE FUNCTION too_much() RETURNS trigger LANGUAGE plpgsql AS $fn$
        BEGIN
            IF (SELECT count(*) FROM fresh) > {rows} THEN
                RAISE EXCEPTION 'too much' USING ERRCODE = '{error}';
            END IF;
            RETURN NULL;
        END
        $fn$
        """
    )
    await fetch(
        connection,
        "CREATE TRIGGER too_much AFTER INSERT ON {r1min} REFERENCING NEW TABLE AS fresh"
        " FOR EACH STATEMENT EXECUTE FUNCTION too_much()",
        tables,
    )


@pytest.mark.parametrize("error", ["query_canceled", "out_of_memory"])
async def test_a_fold_and_a_rebuild_that_are_cut_off_go_on_with_less(
    dsn: str, tables: Tables, connection: Connection, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    writer = LogWriter(connection, tables)
    for batch in range(BATCHES):
        await writer.append(runs=[a_run(f"app:{batch}:{n}", at_us=now_us()) for n in range(SERIES)])
    await cancels_more_than(connection, tables, 5 * SERIES, error)  # two rows a series, of two batches at the most

    async with an_app(dsn) as (chancy, _):
        done = await fold_all(chancy)
        made = await rebuild(chancy)

    assert (done.events, done.position, done.reason) == (BATCHES * SERIES, BATCHES, None)
    assert (made.events, made.left_out, made.different) == (BATCHES * SERIES, 0, 0)
    for key in ("app:0:0", f"app:{BATCHES - 1}:{SERIES - 1}"):
        assert await total(connection, tables, key) == [2] * 4  # both versions
    assert "took too much for one step" in caplog.text


async def test_status_says_why_nobody_folds(dsn: str, tables: Tables, connection: Connection) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await cancels_more_than(connection, tables, 0, "query_canceled")
    async with an_app(dsn) as (chancy, _):
        session_row = SessionRow("worker-1", list, chancy.log, append_interval_s=1)
        with pytest.raises(Exception, match="too much"):
            await Projector(chancy, "p").run_once()
        session_row.fold_error = "QueryCanceled: too much"
        due = session_row.is_due({})
        await session_row.write(connection, tables, {})
        await connection.execute("SET session_replication_role = replica")
        await fetch(connection, "UPDATE {log} SET appended_at = appended_at - interval '5 minutes'", tables)

        failing = await read_status(chancy)
        session_row.fold_error = ""
        due_again = session_row.is_due({})
        await session_row.write(connection, tables, {})
        well = await read_status(chancy)

    assert due and due_again
    assert "folding fails: worker-1: QueryCanceled: too much" in failing.unhealthy[0]
    assert "folding fails" not in well.unhealthy[0]


async def test_a_batch_that_needs_too_much_memory_by_itself_is_set_aside_until_there_is_more(
    dsn: str, tables: Tables, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_size, "_PAUSE_S", 0)
    writer = LogWriter(connection, tables)
    for series in (1, SERIES, 1):
        await writer.append(runs=[a_run(f"app:{series}:{n}", at_us=now_us()) for n in range(series)])
    await cancels_more_than(connection, tables, SERIES // 2, "out_of_memory")

    async with an_app(dsn) as (chancy, _):
        done = await fold_all(chancy)
        as_little = await rebuild(chancy)
        await connection.execute("DROP FUNCTION too_much CASCADE")
        more = await rebuild(chancy)

    dead = await fetch(connection, "SELECT version, position, error FROM {dead_letters} ORDER BY version", tables)
    assert (done.events, done.position) == (2, 3)
    assert (as_little.events, as_little.left_out, as_little.different) == (2, 1, 0)
    assert (more.events, more.left_out) == (SERIES + 2, 0)
    assert [(version, position) for version, position, _ in dead] == [(1, 2), (2, 2)]
    for *_, error in dead:
        assert error.startswith("too little memory for its 20 events of ")
        assert "OutOfMemory: too much" in error


async def test_what_is_no_lack_of_memory_is_raised_where_it_is_met_alone() -> None:
    steps = step_size.StepSize(20_000)

    assert steps.shrink(errors.QueryCanceled("statement timeout"))
    assert steps.events == 10_000
    while steps.shrink(MemoryError()):
        pass
    assert steps.events == 1
    with pytest.raises(errors.QueryCanceled):
        await steps.try_again(errors.QueryCanceled("statement timeout"))
