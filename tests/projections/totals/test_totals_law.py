"""Whatever happens beside them, the totals are the batches up to their position, exactly, and no counter falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import anyio
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncCursor

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import KINDS, Series
from chancy_metrics.events.partitions import close_day, make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.exact_sum import ZERO
from chancy_metrics.projections.fold.exact_sum import add as exactly
from chancy_metrics.projections.fold.fold import fold
from chancy_metrics.projections.fold.levels import projection_of
from chancy_metrics.projections.fold.points import Point, points_of
from chancy_metrics.projections.fold.sketch_codec import decode
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.totals.advance import advance_totals
from chancy_metrics.projections.totals.generation import begin_generation
from chancy_metrics.projections.versions.baseline import absorb_day
from chancy_metrics.projections.versions.compact import compact
from chancy_metrics.projections.versions.promote import promote
from examples.embedded import Server
from tests import rules
from tests.factories import a_database, a_row, a_run, connections, fetch, sequence_all, sequence_and_fold
from tests.projections.totals.test_totals import built_anew, caught_up
from tests.projections.versions.test_baseline import (
    DAY_US,
    FIRST,
    FIRST_US,
    LATE_US,
    Append,
    Truth,
    add,
    let_go,
    version,
)
from tests.projections.versions.test_versions import backfilled

EVERYTHING = dict.fromkeys(RESOLUTIONS, 0)


class Sum(NamedTuple):
    """What a series adds up to."""

    count: int
    sum: Decimal
    min: float
    max: float
    last_us: int
    last: tuple[int, tuple[int, int], float] | None
    sketch: tuple[tuple[int, int], ...]


def merge(one: Sum, other: Sum) -> Sum:
    sketch = Counter(dict(one.sketch)) + Counter(dict(other.sketch))
    return Sum(
        one.count + other.count,
        exactly(one.sum, other.sum),
        min(one.min, other.min),
        max(one.max, other.max),
        max(one.last_us, other.last_us),
        max((last for last in (one.last, other.last) if last is not None), default=None),
        tuple(sorted(sketch.items())),
    )


def as_sum(count: int, total: Decimal, low: float, high: float, at_us: int, last: Any, at: Any, sketch: bytes) -> Sum:
    decoded = zip(*decode(sketch), strict=True) if sketch else ()
    return Sum(
        count, exactly(total, ZERO), low, high, at_us, None if last is None else (at_us, at, last), tuple(decoded)
    )


def of_point(point: Point) -> Sum:
    return as_sum(
        point.observations,
        point.sum,
        point.minimum,
        point.maximum,
        point.last_us,
        point.last,
        point.last_at,
        point.sketch,
    )


def expected(truth: Truth, position: int) -> dict[Series, Sum]:
    """What the batches up to *position* add up to."""
    batches = [batch for at, batch in truth._batches.items() if at <= position]
    sums: dict[Series, Sum] = {}
    for point in points_of(projection_of(fold(batches), EVERYTHING), EVERYTHING):
        if (point.resolution, point.worker) == ("1day", None):
            one = of_point(point)
            sums[point.series] = merge(sums[point.series], one) if point.series in sums else one
    return sums


class Read(NamedTuple):
    generation: int
    position: int
    sums: dict[Series, Sum]


async def read(connection: Connection, tables: Tables) -> Read | None:
    """The rows of the totals that are served, every column exactly."""
    rows = await fetch(
        connection,
        "SELECT v.version, v.position, s.key, s.kind, s.unit, r.count, r.sum, r.min, r.max, r.last_us, r.last,"
        " r.last_position, r.last_index, r.sketch FROM {versions} v LEFT JOIN {totals} r USING (version)"
        " LEFT JOIN {series} s ON s.id = r.series WHERE v.status = 'totals'",
        tables,
    )
    if not rows:
        return None
    sums = {Series(*row[2:5]): as_sum(*row[5:11], row[11:13], row[13] or b"") for row in rows if row[2] is not None}
    return Read(rows[0][0], rows[0][1], sums)


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_at(connection: Connection, statement: int) -> Iterator[None]:
    """Let the process that uses *connection* end before so many more statements, with its transaction."""
    left = statement

    class Mortal(AsyncCursor[Any]):
        async def execute(self, *arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                await self.connection.close()
                raise Killed
            return await super().execute(*arguments, **options)

    connection.cursor_factory = Mortal
    try:
        yield
    except (Killed, psycopg.OperationalError):
        assert left < 0


class History:
    """A log, its versions and its totals, to which steps happen; what is read is checked after each of them."""

    def __init__(self, connection: Connection, tables: Tables, truth: Truth) -> None:
        self.connection = connection
        self.tables = tables
        self.truth = truth
        self.at_day = 1.0
        self.seen: Read | None = None

    async def append(self, step: Append) -> None:
        noon = FIRST_US + step.day * DAY_US + DAY_US // 2
        runs = [a_run(name, values, kind=kind, at_us=noon - late) for kind, name, late, values in step.runs]  # type: ignore[arg-type]
        await add(self.connection, self.tables, step.day, *runs, jobs=[a_row(noon)], worker=step.worker)

    async def happen(self, step: Append | tuple[str, int]) -> None:
        if isinstance(step, Append):
            await self.append(step)
        else:
            what, number = step
            await getattr(self, f"_{what}")(number)
        await self.check()

    async def check(self) -> None:
        """Check what a scrape would see now."""
        found = await read(self.connection, self.tables)
        if found is None:
            assert self.seen is None
            return
        await self.truth.look(self.connection, self.tables)
        assert found.sums == expected(self.truth, found.position)
        before, self.seen = self.seen, found
        if before is not None:
            assert (found.generation, found.position) >= (before.generation, before.position)
            for series, total in before.sums.items():
                assert found.sums[series].count >= total.count

    async def _fold(self, number: int) -> None:
        await sequence_and_fold(self.connection, self.tables)
        await self.truth.look(self.connection, self.tables)

    async def _sequence(self, number: int) -> None:
        await sequence_all(self.connection, self.tables)
        await self.truth.look(self.connection, self.tables)

    async def _scrape(self, number: int) -> None:
        """One step, or all that there are."""
        if number % 4:
            await advance_totals(self.connection, self.tables, BUILT_IN, folded_by="test", step_events=number)
        else:
            await caught_up(self.connection, self.tables)

    async def _two(self, number: int) -> None:
        """Two scrape at once."""
        async with connections(self.connection.info.dsn, 2) as both, anyio.create_task_group() as group:
            for one in both:
                group.start_soon(caught_up, one, self.tables)

    async def _kill(self, number: int) -> None:
        async with connections(self.connection.info.dsn, 1) as (mine,):
            with killed_at(mine, number):
                await caught_up(mine, self.tables)

    async def _prune(self, number: int) -> None:
        self.at_day += number % 3
        await let_go(self.connection, self.tables, self.at_day)

    async def _rebuild(self, number: int) -> None:
        await sequence_and_fold(self.connection, self.tables)
        await self._promote(await backfilled(self.connection, self.tables), "asked")

    async def _undo(self, number: int) -> None:
        live = await version(self.connection, self.tables)
        if (
            live.replaced is not None
            and (await version(self.connection, self.tables, live.replaced)).status == "standby"
        ):
            await self._promote(live.replaced, "undo")

    async def _promote(self, number: int, cause: Any) -> None:
        async with connections(self.connection.info.dsn, 1) as (holding,):
            await promote(
                holding,
                self.connection,
                self.tables,
                number,
                BUILT_IN,
                cause=cause,
                folded_by="test",
                keep_s=3_600,
            )

    async def _compact(self, number: int) -> None:
        await compact(self.connection, self.tables, EVERYTHING)

    async def _anew(self, number: int) -> None:
        """Steps of another generation, which is served when it has caught up."""
        await built_anew(self.connection, self.tables, steps=number, step_events=40)


appends = st.builds(
    Append,
    day=st.integers(0, 3),
    worker=st.sampled_from(["w1", "w2"]),
    runs=st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(["a", "b"]),
            st.sampled_from(LATE_US),
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
        ),
        max_size=3,
    ),
)
BESIDE = ["scrape", "two", "kill", "prune", "rebuild", "undo", "compact", "anew"]
steps = st.lists(
    st.tuples(
        st.lists(appends, max_size=2),
        st.sampled_from(["fold", "sequence"]),
        st.lists(st.tuples(st.sampled_from(BESIDE), st.integers(0, 60)), min_size=1, max_size=3),
    ),
    min_size=3,
    max_size=10,
)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=steps)
async def test_totals_are_the_batches_up_to_their_position_whatever_happens(
    server: Server,
    template: str,
    tables: Tables,
    drawn: Iterable[tuple[list[Append], str, list[tuple[str, int]]]],
) -> None:
    async with a_database(server, template) as connection:
        await make_days(connection, tables, today=FIRST, ahead=3)
        history = History(connection, tables, Truth())
        for new, ordered, beside in drawn:
            for step in [*new, (ordered, 0), *beside]:
                await history.happen(step)
        await history.happen(("fold", 0))
        await history.happen(("scrape", 0))

        assert history.seen is not None
        assert history.seen.position == (await version(connection, tables)).position


@pytest.fixture
async def history(connection: Connection, tables: Tables) -> History:
    await make_days(connection, tables, today=FIRST, ahead=3)
    return History(connection, tables, Truth())


def a_step(day: int = 0, *values: float) -> Append:
    return Append(day, "w1", [("counter", "a", 0, list(values or (1.0,)))])


async def test_a_day_leaves_the_log_only_after_the_totals_have_added_it(
    history: History, connection: Connection, tables: Tables
) -> None:
    for step in (a_step(), ("fold", 0), ("scrape", 0), a_step(), ("fold", 0), ("prune", 2)):
        await history.happen(step)

    assert await fetch(connection, "SELECT state FROM {days} WHERE day = %(day)s", tables, day=FIRST) == [("gone",)]
    assert history.seen is not None and history.seen.position == 2
    await history.happen(("scrape", 0))
    assert history.seen.sums[Series("a", "counter", "count")].sum == 2


async def test_a_process_that_is_killed_before_any_statement_of_a_step_loses_and_repeats_nothing(
    history: History,
) -> None:
    await history.happen(a_step(1))
    await history.happen(("fold", 0))
    for statement in range(60):
        await history.happen(("kill", statement))
        if history.seen is not None:
            await history.append(a_step(1, 0.1, 1e300))
        await history.happen(("sequence", 0))

    await history.happen(("scrape", 0))

    assert history.seen is not None
    assert history.seen.position > 20  # so many steps were killed, after those of the first build


async def test_a_copy_of_the_baseline_that_is_killed_goes_on_where_it_stopped(
    history: History, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.projections.totals.generation.COPY_SERIES", 2)
    for step in (a_step(), a_step(1), ("fold", 0), ("prune", 2)):
        await history.happen(step)
    [(series,)] = await fetch(connection, "SELECT count(DISTINCT series) FROM {r1day} WHERE version = 0", tables)
    generations = set()

    for statement in range(5, 200, 3):
        await history.happen(("kill", statement))
        generations |= set(await fetch(connection, "SELECT version FROM {versions} WHERE version > 1", tables))
        if history.seen is not None:
            break

    assert series > 8  # several chunks
    assert history.seen is not None
    assert len(generations) == 1


async def test_what_keeps_a_day_in_the_log_is_said(history: History, connection: Connection, tables: Tables) -> None:
    newer = RuleSet(user=1, rules=(rules.first,))
    await history.happen(a_step())
    await history.happen(("fold", 0))
    await caught_up(connection, tables, newer)
    await history.append(a_step())
    await sequence_and_fold(connection, tables)

    [by_rules] = await let_go(connection, tables, 3)
    await caught_up(connection, tables, newer)
    half_built = await begin_generation(connection, tables, BUILT_IN, by="test")
    [unfinished] = await let_go(connection, tables, 3)
    await built_anew(connection, tables)
    [gone] = await let_go(connection, tables, 3)

    stands = f"generation 2 of the totals is at position 1, and {FIRST} ends at 2: generation 2 has rules "
    assert by_rules.blocker is not None and by_rules.blocker.startswith(stands)
    assert unfinished.blocker == (
        f"generation {half_built.version} of the totals is at position 0, and {FIRST} ends at 2; "
        "`chancy-metrics rebuild --totals` finishes it"
    )
    assert (gone.state, gone.blocker) == ("gone", None)


async def test_a_day_is_not_absorbed_behind_the_totals_whoever_asks(
    history: History, connection: Connection, tables: Tables
) -> None:
    for step in (a_step(), ("fold", 0), ("scrape", 0), a_step(), ("fold", 0)):
        await history.happen(step)
    assert await close_day(connection, tables, FIRST) is None

    refused = await absorb_day(connection, tables, BUILT_IN, FIRST)
    await history.happen(("scrape", 0))
    done = await absorb_day(connection, tables, BUILT_IN, FIRST)

    assert refused == f"generation 2 of the totals is at position 1, and {FIRST} ends at 2"
    assert done is None
