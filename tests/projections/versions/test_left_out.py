"""What can be read and not stored costs its own batch or rule, is said, and is taken up when it can be."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import psycopg
import pytest
from anyio import to_thread
from chancy import Chancy
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.error_kinds import is_deterministic
from chancy_metrics.events.errors import MetricsLogError, StuckAt, TotalsNotReady
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Derived, JobColumns, Metrics, Observation, read_totals
from chancy_metrics.plugin.audit.events import job_life
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.marks import mark
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.completeness import completeness
from chancy_metrics.plugin.health.dead_letters import discard, discard_rule
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.fold.points import diff
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.left_out import LeftOut, forget_left_out, left_out
from chancy_metrics.projections.versions.replay import replay, stored
from chancy_metrics.projections.versions.version import live_version
from examples.embedded import Server
from tests import rules
from tests.factories import LogWriter, a_row, a_run, an_app, connections, fetch, now_us, sequence_all, sequence_and_fold

_numbers = count(1)

#: A database that refuses keys that begin with "poison", as one of another encoding refuses some letters.
REFUSE = """
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no % here', NEW.key USING ERRCODE = 'untranslatable_character';
END $$;
CREATE TRIGGER refuse_poison BEFORE INSERT ON {series}
    FOR EACH ROW WHEN (NEW.key LIKE 'poison%') EXECUTE FUNCTION refuse_poison();
"""


@pytest.fixture
def latin1(server: Server) -> Iterator[str]:
    """An empty database whose encoding is LATIN1."""
    name = f"latin1_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").format(sql.Identifier(name))
        )
        yield server.dsn(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def what_live_leaves_out(connection: Connection, tables: Tables, span: Span = Span()) -> LeftOut:  # noqa: B008
    async with short_transaction(connection) as cursor:
        return await left_out(cursor, tables, (await live_version(cursor, tables)).version, span)


async def counted(connection: Connection, tables: Tables, key: str) -> int:
    """What the live version says of a counter, by day."""
    query = (
        "SELECT coalesce(sum(r.sum), 0)::bigint FROM {r1day} r JOIN {series} s ON s.id = r.series"
        " WHERE key = %(key)s AND version = (SELECT live FROM {head})"
    )
    return int((await fetch(connection, query, tables, key=key))[0][0])


async def dead(connection: Connection, tables: Tables) -> set[int]:
    """Positions that the live version leaves out."""
    query = "SELECT position FROM {dead_letters} WHERE version = (SELECT live FROM {head}) AND rule = ''"
    return {row[0] for row in await fetch(connection, query, tables)}


@pytest.mark.parametrize(
    ("error", "of_the_data"),
    [
        (errors.UntranslatableCharacter(), True),
        (errors.CharacterNotInRepertoire(), True),
        (errors.NumericValueOutOfRange(), True),
        (errors.SequenceGeneratorLimitExceeded(), True),
        (errors.ProgramLimitExceeded(), True),
        (errors.UniqueViolation(), True),
        (errors.CheckViolation(), True),
        (errors.RaiseException(), True),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), True),
        (UnicodeEncodeError("latin-1", "€", 0, 1, "no"), True),
        (OverflowError(), True),
        (ValueError(), True),
        (psycopg.OperationalError("the connection is lost"), False),
        (psycopg.InterfaceError("the connection is closed"), False),
        (errors.ConnectionFailure(), False),
        (errors.LockNotAvailable(), False),
        (errors.DeadlockDetected(), False),
        (errors.SerializationFailure(), False),
        (errors.QueryCanceled(), False),
        (errors.AdminShutdown(), False),
        (errors.IdleInTransactionSessionTimeout(), False),
        (errors.DiskFull(), False),
        (errors.OutOfMemory(), False),
        (errors.TooManyConnections(), False),
        (errors.ReadOnlySqlTransaction(), False),
        (errors.UndefinedTable(), False),
        (errors.UndefinedColumn(), False),
        (errors.InsufficientPrivilege(), False),
        (errors.InternalError_(), False),
        (errors.DataCorrupted(), False),
        (MemoryError(), False),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
        (RuntimeError("can't start new thread"), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_only_errors_of_the_data_cost_a_batch(error: Exception, of_the_data: bool) -> None:
    assert is_deterministic(error) is of_the_data


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poisonous=st.lists(st.booleans(), min_size=1, max_size=9))
async def test_exactly_the_poisonous_batches_are_left_out_live_and_rebuilt(
    dsn: str, tables: Tables, poisonous: list[bool]
) -> None:
    mine = uuid.uuid4().hex
    async with connections(dsn, 1) as (connection,):
        if not await fetch(connection, "SELECT 1 FROM pg_trigger WHERE tgname = 'refuse_poison'", tables):
            await fetch(connection, REFUSE, tables)
        await sequence_and_fold(connection, tables)
        before, known = (await dead(connection, tables)), await counted(connection, tables, "global:status:succeeded")
        [(last,)] = await fetch(connection, "SELECT position FROM {head}", tables)
        for is_poison in poisonous:
            run = a_run(f"poison:{uuid.uuid4().hex}" if is_poison else mine, at_us=now_us())
            await LogWriter(connection, tables).append(jobs=[a_row(now_us())], runs=[run])
        await sequence_and_fold(connection, tables)
        healthy = len(poisonous) - sum(poisonous)
        wrong = {last + 1 + number for number, is_poison in enumerate(poisonous) if is_poison}

        assert await dead(connection, tables) == before | wrong
        assert await counted(connection, tables, mine) == healthy
        assert await counted(connection, tables, "global:status:succeeded") == known + healthy
        assert diff(await stored(connection, tables), await replay(connection, tables)) == []
        async with an_app(dsn) as (chancy, _):
            made = await rebuild(chancy)
        assert (made.different, made.left_out) == (0, len(before | wrong))
        assert await dead(connection, tables) == before | wrong


async def test_what_an_error_that_may_pass_stops_is_folded_later(connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_all(connection, tables)
    await fetch(connection, "ALTER TABLE {series} RENAME TO away", tables)

    with pytest.raises(errors.UndefinedTable):
        await advance(connection, tables, folded_by="test")
    await fetch(connection, "ALTER TABLE away RENAME TO chancy_metrics_series", tables)
    await sequence_and_fold(connection, tables)

    assert await counted(connection, tables, "app:n") == 1
    assert not await what_live_leaves_out(connection, tables)


async def test_a_rule_whose_metrics_can_t_be_stored_costs_them_alone(connection: Connection, tables: Tables) -> None:
    def poison(jobs: JobColumns) -> Iterator[Derived]:
        yield Derived.counter("poison", range(len(jobs.at_us)))

    def fine(jobs: JobColumns) -> Iterator[Derived]:
        yield Derived.counter("fine", range(len(jobs.at_us)))

    both = RuleSet(user=1, rules=(fine, poison))
    await fetch(connection, REFUSE, tables)
    await fetch(connection, "UPDATE {versions} SET user_rules = 1, rule_names = '{{fine,poison}}'", tables)
    await LogWriter(connection, tables).append(jobs=[a_row(now_us())] * 2)
    await sequence_and_fold(connection, tables, both)

    found = await what_live_leaves_out(connection, tables)
    assert (found.batches, [(rule.rule, rule.batches) for rule in found.rules]) == (0, [("poison", 1)])
    assert "no poison here" in found.sentence
    assert await counted(connection, tables, "global:status:succeeded") == 2
    assert await counted(connection, tables, "fine") == 2
    assert diff(await stored(connection, tables), await replay(connection, tables, both)) == []


async def test_a_sequence_at_its_end_stops_new_names_and_nothing_else(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:known", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "ALTER TABLE {series} ALTER id SET MAXVALUE 1000 RESTART 1000", tables)
    await fetch(connection, "SELECT nextval(pg_get_serial_sequence('chancy_metrics_series', 'id'))", tables)
    for key in ("app:new", "app:known"):
        await writer.append(runs=[a_run(key, at_us=now_us())])
    await sequence_and_fold(connection, tables)

    assert await counted(connection, tables, "app:known") == 2
    assert "reached maximum value" in (await what_live_leaves_out(connection, tables)).sentence

    await fetch(connection, "ALTER TABLE {series} ALTER id SET MAXVALUE 2147483647", tables)
    async with an_app(dsn) as (chancy, _):
        made = await rebuild(chancy)
    assert (made.left_out, made.leaves_out) == (0, "")
    assert await counted(connection, tables, "app:new") == 1


async def test_a_database_that_is_latin1_folds_what_it_can_hold(
    latin1: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with Chancy(latin1, plugins=[Metrics()]) as chancy:
        await chancy.migrate()
    assert "encoded in LATIN1" in caplog.text
    async with an_app(latin1) as (chancy, metrics), connections(latin1, 1) as (connection,):
        async with metrics.recording(chancy):
            await metrics.increment_counter("price:£", 2)
            await metrics.increment_counter("app:n", 3)
        async with metrics.recording(chancy, worker_id="paid in €"):
            await metrics.increment_counter("app:n", 4)
            async with connection.transaction(), connection.cursor() as cursor:
                await metrics.record_in_transaction(chancy, cursor, Observation.counter("app:n", 5))
        for key in ("price:€", "app:n"):
            await LogWriter(connection, tables).append(runs=[a_run(key, at_us=now_us())])
        folded = await fold_all(chancy, "folds for €")
        of_worker = await metrics.get_metrics(chancy, "app:n", worker_id="paid in €")
        found = await what_live_leaves_out(connection, tables)
        checked = await verify(chancy)
        made = await rebuild(chancy)
        with pytest.raises(MetricsLogError, match="can't hold 'price in €'"):
            await mark(chancy, "price in €")
        await mark(chancy, "price in £", by="who is paid in €")
        given_up = await discard(chancy, found.first[0].position, why="€", by="€")
        unknown = await metrics.get_metrics(chancy, "price:€", worker_id="€")
        with pytest.raises(MetricsLogError, match="nothing was recorded under"):
            await explain(chancy, "price:€", datetime.now(UTC))

    assert (given_up.why, unknown) == ("\\u20ac", {})
    assert folded.reason is None and of_worker["app:n"].values_1day[0][1] >= 4
    assert (found.batches, found.rules) == (1, []) and "LATIN1" in found.sentence.upper().replace("LATIN-1", "LATIN1")
    assert (checked.drift, made.different, made.left_out) == (0, 0, 1)


async def test_what_is_left_out_of_a_span_is_counted_by_the_times_of_its_events(
    connection: Connection, tables: Tables
) -> None:
    await fetch(connection, REFUSE, tables)
    now = now_us()
    await LogWriter(connection, tables).append(runs=[a_run("poison", [1, 2], at_us=now - 7_200_000_000)])
    await sequence_and_fold(connection, tables)

    hour = 3_600_000_000

    async def found(since_us: int | None, until_us: int | None) -> LeftOut:
        return await what_live_leaves_out(connection, tables, Span(since_us, until_us))

    assert ((await found(now - 3 * hour, now - hour)).batches, (await found(None, None)).events) == (1, 2)
    assert not await found(now - hour, None) and not await found(None, now - 2 * hour)
    assert (await found(None, None)).sentence.startswith("version 1 leaves out 1 batch of 2 events (position 1: can't")


def test_more_is_left_out_where_a_rule_or_batches_are() -> None:
    live = LeftOut(1, 2, 0, 10, 0, [], [])
    assert not LeftOut(2, 2, 1, 10, 0, [], []).beyond(live)
    assert LeftOut(2, 3, 3, 10, 0, [], []).beyond(live).batches == 3


async def test_every_surface_says_what_is_left_out_of_the_span_it_speaks_of(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSN", dsn)
    await fetch(connection, REFUSE, tables)
    writer = LogWriter(connection, tables)
    rows = [a_row(now_us()), a_row(now_us())]
    await writer.append(jobs=rows[:1])
    await writer.append(jobs=rows[1:], runs=[a_run("poison", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    says = "version 1 leaves out 1 batch of 2 events (position 2: can't be stored: UntranslatableCharacter: no poison"
    now, day = datetime.now(UTC), timedelta(days=1)
    async with an_app(dsn) as (chancy, _):
        explained = await explain(chancy, "global:status:succeeded", now, resolution="1day")
        elsewhere = await explain(chancy, "global:status:succeeded", now - 3 * day, resolution="1day")
        lives = [await job_life(chancy, UUID(bytes=row.job_id)) for row in rows]
        windows = [await completeness(chancy, now - day), await completeness(chancy, None, now - day)]
        made = await rebuild(chancy)

    assert explained.equal and explained.left_out.batches == 1
    assert explained.sentence.startswith(f"1 event in the log; recomputed: equal; not in either: {says}")
    assert elsewhere.sentence == "0 events in the log; nothing is stored, and no event in the log belongs here"
    assert [(one.dead_letters, says in one.left_out) for one in windows] == [(1, True), (0, False)]
    assert [[one.position for one in life.left_out] for life in lives] == [[], [2]]
    assert (made.left_out, made.different) == (1, 0)
    assert (says in made.left_out_before, says.replace("version 1", "version 2") in made.leaves_out) == (True, True)

    def command(*arguments: str) -> str:
        return CliRunner().invoke(main, ["--app", "tests.app.chancy", *arguments]).output

    says = says.replace("version 1", "version 2")
    for arguments in (["audit", "events"], ["completeness"], ["status"], ["verify"], ["versions"], ["swap", "1"]):
        said = await to_thread.run_sync(lambda given=arguments: command(*given))
        assert "1 batch of 2 events" in said, said
    assert says not in await to_thread.run_sync(lambda: command("audit", "events", "--until", "1d"))


async def test_discard_says_where_a_batch_is_that_no_version_leaves_out(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_all(connection, tables)
    await fetch(connection, "DELETE FROM {ledger} WHERE position = 3", tables)

    async def refused(chancy: Chancy, position: int) -> str:
        with pytest.raises(MetricsLogError) as error:
            await discard(chancy, position, why="a test", by="me")
        return str(error.value).removesuffix("; no batch is left out and not given up")

    async with an_app(dsn) as (chancy, _):
        said = [await refused(chancy, position) for position in (0, 1, 3, 4, 5, 2)]
        with pytest.raises(MetricsLogError, match="rule 'x' has failed on no batch"):
            await discard_rule(chancy, "x", why="a test", by="me")

    assert said == [
        "there is no position 0: the first one is 1",
        "the batch at position 1 is in the numbers of version 1",
        "position 3 is missing from the ledger, which is damage: `chancy-metrics verify` says more",
        "the batch at position 4 is in no version yet; version 1 stands at 1 and folds the batches before it first",
        "there is no position 5 yet: the ledger ends at 4",
        "the batch at position 2 is folded now, into version 1",
    ]


async def test_discard_gets_a_version_past_a_batch_whatever_the_error_is(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await fetch(connection, REFUSE.replace("untranslatable_character", "internal_error"), tables)
    for key in ("app:n", "app:n", "poison", "app:n"):
        await LogWriter(connection, tables).append(runs=[a_run(key, at_us=now_us())])
    await sequence_all(connection, tables)
    for _ in range(2):  # nobody knows whether that may pass
        with pytest.raises(StuckAt, match=r"past position 3: InternalError_: no poison here.*discard 3 --why"):
            await advance(connection, tables, folded_by="test")
    assert await counted(connection, tables, "app:n") == 2

    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="in the numbers of version 1"):
            await discard(chancy, 2, why="a test", by="me")
        done = await discard(chancy, 3, why="the server can't", by="me")
        await sequence_and_fold(connection, tables)
        checked = await verify(chancy)

    assert (done.versions, done.again) == ([1], False)
    assert await counted(connection, tables, "app:n") == 3
    assert (await what_live_leaves_out(connection, tables)).discarded == 1
    assert checked.drift == 0


async def test_discard_gets_the_totals_past_a_batch_too(dsn: str, connection: Connection, tables: Tables) -> None:
    await fetch(connection, REFUSE.replace("untranslatable_character", "internal_error"), tables)
    for key in ("app:n", "poison", "app:n"):
        await LogWriter(connection, tables).append(runs=[a_run(key, at_us=now_us())])
    await sequence_all(connection, tables)

    async with an_app(dsn) as (chancy, _):
        with pytest.raises(TotalsNotReady, match=r"not further now: StuckAt: .* past position 2: .*discard 2 --why"):
            await read_totals(chancy)
        await discard(chancy, 2, why="the server can't", by="me")
        totals = await read_totals(chancy)

    assert (totals.position, [one.sum for one in totals.series]) == (3, [2])
    async with short_transaction(connection) as cursor:
        assert (await left_out(cursor, tables, totals.generation)).discarded == 1


async def test_a_process_whose_own_encoding_is_another_folds_and_reads_every_key(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    async with an_app(dsn) as (chancy, metrics):
        async with metrics.recording(chancy, worker_id="wörker €"):
            await metrics.increment_counter("price:€", 2)
        await fold_all(chancy)
        read = [
            await metrics.get_metrics(chancy, "price:€"),
            await metrics.get_metrics(chancy, "price:€", worker_id="wörker €"),
        ]
        explained = await explain(chancy, "price:€", datetime.now(UTC), resolution="1day")
        checked = await verify(chancy)

    assert not await what_live_leaves_out(connection, tables)
    assert [[value for _, value in one["price:€"].values_1day] for one in read] == [[2], [2]]
    assert explained.equal and checked.drift == 0


async def test_a_day_on_which_a_rule_failed_stays_until_that_is_given_up_and_versions_say_so_for_ever(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    picky = RuleSet(user=1, rules=(rules.picky,))
    await fetch(connection, "UPDATE {versions} SET user_rules = 1, rule_names = '{{picky}}'", tables)
    day = datetime.now(UTC).date() - timedelta(days=3)
    await make_days(connection, tables, today=day, ahead=0)
    await LogWriter(connection, tables).append(jobs=[a_row(now_us(), state="failed")], day=day)
    await sequence_and_fold(connection, tables, picky)

    async def pruned() -> str:
        [done] = await prune_days(connection, tables, picky, now_us=now_us(), log_retention_s=86_400)
        return done.blocker or ""

    stays = await pruned()
    async with an_app(dsn, Metrics(rules=[rules.picky], rules_version=1)) as (chancy, _):
        given_up = await discard_rule(chancy, "picky", why="a test", by="me")
        goes = await pruned()
        made = await rebuild(chancy)
        found = await completeness(chancy)

    assert stays.startswith("rule 'picky' failed on 1 of its batches (position 1: LookupError")
    assert "`chancy-metrics discard --rule picky --why ...`" in stays
    assert (given_up, goes, made.different) == (1, "", 0)
    assert [(rule.rule, rule.batches, rule.discarded) for rule in found.failing_rules] == [("picky", 1, 1)]


async def test_what_is_left_out_is_forgotten_with_its_position(connection: Connection, tables: Tables) -> None:
    for _ in range(2):
        await LogWriter(connection, tables).append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    note = "INSERT INTO {dead_letters} (version, position, error) VALUES (0, %(at)s, 'x'), (1, %(at)s, 'x')"
    for position in (1, 2):
        await fetch(connection, note, tables, at=position)
    await fetch(connection, "DELETE FROM {ledger} WHERE position = 1", tables)

    async with short_transaction(connection) as cursor:
        removed = [await forget_left_out(cursor, tables, chunk=1) for _ in range(3)]

    assert removed == [1, 1, 0]
    assert await fetch(connection, "SELECT version, position FROM {dead_letters}", tables) == [(0, 2), (1, 2)]
