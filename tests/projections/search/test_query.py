"""A query yields exactly the events that match, in order, with the skip index and without."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chancy_metrics.events.batch import ObservationRun
from chancy_metrics.events.bloom import token
from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import EPOCH, Combo, JobRow
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.skip_index import SkipRange
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.search import indexing
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.search.gaps import Gap
from chancy_metrics.projections.search.indexing import _job_tokens, summarise
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from chancy_metrics.projections.search.ranges import ranges_to_read
from chancy_metrics.projections.search.scan import read_pages
from tests.factories import NOON_US, LogWriter, a_row, a_run, fetch, sequence_all

SECOND_US = 1_000_000
IDS = [uuid.UUID(int=number) for number in range(1, 9)]
KEYS = ["app", "app:n", "app:n:x", "apple", "job:app.work", "queue:default:succeeded", "a::b"]

job_rows = st.builds(
    lambda number, second, func, queue, state, error, started: a_row(
        NOON_US + second * SECOND_US,
        job_id=IDS[number].bytes,
        combo=Combo(func, queue, state, 1, error),
        **({} if started else {"started_us": None, "completed_us": None}),
    ),
    st.integers(0, 7),
    st.integers(0, 9),
    st.sampled_from(["app.work", "app.rest"]),
    st.sampled_from(["default", "slow"]),
    st.sampled_from(["succeeded", "failed", "retrying"]),
    st.sampled_from(["", "ValueError", "app.Declined: card: declined"]),
    st.booleans(),
)
runs = st.builds(
    lambda key, kind, values, second: a_run(key, values, kind=kind, at_us=NOON_US + second * SECOND_US),
    st.sampled_from(KEYS),
    st.sampled_from(["counter", "gauge", "histogram"]),
    st.lists(st.just(1.0), min_size=1, max_size=3),
    st.integers(0, 9),
)
batches = st.tuples(st.lists(job_rows, max_size=4), st.lists(runs, max_size=3), st.integers(0, 1))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


moments = st.integers(0, 10).map(lambda second: EPOCH + timedelta(microseconds=NOON_US + second * SECOND_US))
selections = st.builds(
    EventQuery,
    since=maybe(moments),
    until=maybe(moments),
    after=maybe(st.builds(EventCursor, st.integers(0, 12), maybe(st.integers(0, 5)))),
    first_position=maybe(st.integers(1, 12)),
    last_position=maybe(st.integers(1, 12)),
    worker=maybe(st.sampled_from(["w0", "w1"])),
    kinds=st.lists(st.sampled_from(["job", "counter", "gauge", "histogram"]), unique=True, max_size=2).map(tuple),
    key=maybe(
        st.sampled_from(
            [
                *KEYS,
                "job:app.work:succeeded",
                "queue:slow:wait_time",
                "job:app.work:total_time",
                "job:app.work:attempts",
            ]
        )
    ),
    prefix=maybe(
        st.sampled_from(
            [
                "",
                "app",
                "app:n",
                "a",
                "a:",
                "job",
                "queue:default",
                "job:app.rest:execution_time",
                "job:app.rest:attempts",
            ]
        )
    ),
    func=maybe(st.just("app.work")),
    queue=maybe(st.just("slow")),
    state=maybe(st.sampled_from(["failed", "retrying"])),
    job_id=maybe(st.sampled_from([*IDS, uuid.UUID(int=99)])),
    error=maybe(st.sampled_from(["", "ValueError", "app.Declined", "app.Declined: card: declined", "app.Decl"])),
)


def fits(wanted: EventQuery, event: Event) -> bool:
    """The oracle: one event, in plain Python."""
    if wanted.after is not None:
        cursor = (event.position, event.index)
        index = 10**9 if wanted.after.index is None else wanted.after.index
        if cursor <= (wanted.after.position, index):
            return False
    keys = [event.key]
    if event.kind == "job":
        assert event.func is not None and event.queue is not None and event.state is not None
        keys = [series.key for series in job_series(event.func, event.queue, event.state)]
        keys = [key for key in keys if not key.endswith(":execution_time") or event.run_s is not None]
        keys = [key for key in keys if not key.endswith(":wait_time") or event.wait_s is not None]
        ended = event.state == "succeeded" and event.completed_at is not None
        keys = [key for key in keys if not key.endswith(":total_time") or ended]
        keys = [key for key in keys if not key.endswith(":attempts") or event.state in ("succeeded", "failed")]

    def is_under(key: str) -> bool:
        return not wanted.prefix or key == wanted.prefix or key.startswith(wanted.prefix + ":")

    return (
        (wanted.since is None or event.at >= wanted.since)
        and (wanted.until is None or event.at < wanted.until)
        and (wanted.first_position is None or event.position >= wanted.first_position)
        and (wanted.last_position is None or event.position <= wanted.last_position)
        and wanted.worker in (None, event.worker)
        and wanted.producer in (None, event.producer)
        and (not wanted.kinds or event.kind in wanted.kinds)
        and any(wanted.key in (None, key) and is_under(key) for key in keys if key is not None)
        and wanted.func in (None, event.func)
        and wanted.queue in (None, event.queue)
        and wanted.state in (None, event.state)
        and wanted.job_id in (None, event.job_id)
        and (wanted.error is None or (event.kind == "job" and wanted.error in (event.error, event.error.split(":")[0])))
    )


async def chosen(
    connection: Connection, tables: Tables, wanted: EventQuery | None = None
) -> tuple[list[Event], list[Gap]]:
    pages = [page async for page in read_pages(connection, tables, wanted or EventQuery())]
    return [event for page in pages for event in page.to_events()], [gap for page in pages for gap in page.gaps]


async def write(
    connection: Connection, tables: Tables, history: Sequence[tuple[list[JobRow], list[ObservationRun], int]]
) -> None:
    writers = [LogWriter(connection, tables, f"w{number}") for number in range(2)]
    for jobs, observed, number in history:
        merged = {run.series: run for run in observed}
        await writers[number].append(jobs=jobs, runs=list(merged.values()))
    await sequence_all(connection, tables)


async def begin_anew(connection: Connection, tables: Tables) -> None:
    await connection.execute("SET session_replication_role = replica")
    await fetch(connection, "DELETE FROM {log}", tables)
    await fetch(connection, "TRUNCATE {ledger}, {pending}, {summaries}, {producers}", tables)
    await fetch(connection, "UPDATE {head} SET position = 0, chain = ''", tables)
    await connection.execute("SET session_replication_role = origin")


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(batches, max_size=12), wanted=st.lists(selections, min_size=1, max_size=4), full=st.integers(1, 6)
)
async def test_a_selection_is_what_matches_of_all_events_with_and_without_summaries(
    history: Any, wanted: list[EventQuery], full: int, connection: Connection, tables: Tables
) -> None:
    await begin_anew(connection, tables)
    await write(connection, tables, history)
    everything, _ = await chosen(connection, tables)
    wanted = [
        msgspec.structs.replace(one, after=None) if one.after is not None and one.after.position > len(history) else one
        for one in wanted
    ]

    without = [await chosen(connection, tables, one) for one in wanted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "RANGE_EVENTS", full)
        patch.setattr(indexing, "RANGE_BATCHES", 3)
        await summarise(connection, tables)
    behind = [await chosen(connection, tables, one) for one in wanted]

    assert len(everything) == sum(
        len(jobs) + sum(len(run.values) for run in {run.series: run for run in observed}.values())
        for jobs, observed, _ in history
    )
    expected = [([event for event in everything if fits(one, event)], []) for one in wanted]
    assert without == expected
    assert behind == expected


@st.composite
def summarised(draw: st.DrawFn) -> tuple[list[SkipRange], int]:
    """Ranges in order, with holes between some; and the last position that has left the log."""
    ranges, position = [], 1
    for hole, length, skips in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()))):
        ranges.append(SkipRange(position + hole, position + hole + length - 1, skips))
        position += hole + length
    return ranges, draw(st.integers(0, position))


@given(summarised(), st.integers(1, 20), st.integers(0, 60))
def test_what_is_read_is_what_no_summary_denies_and_what_has_not_left(
    history: tuple[list[SkipRange], int], first: int, end: int
) -> None:
    ranges, floor = history
    known = {position: one.skips for one in ranges for position in range(one.first, one.last + 1)}
    last = max(known, default=0)
    reaching = [one for one in ranges if one.last >= first and one.first <= end]

    found = ranges_to_read(reaching, first, end, floor)

    read = [position for start, stop in found for position in range(start, stop + 1)]
    assert read == sorted(set(read))
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(found))
    for position in range(first, end + 1):
        if position in known:
            assert (position in read) == (not known[position])
        elif position > floor or position > last:
            assert position in read


async def test_behind_any_cursor_comes_exactly_the_rest(connection: Connection, tables: Tables) -> None:
    history = [([a_row(), a_row()], [a_run("app", [1.0, 2.0])], 0), ([], [a_run("app")], 1), ([a_row()], [], 0)]
    await write(connection, tables, history)
    everything, _ = await chosen(connection, tables)

    for number, event in enumerate(everything, 1):
        behind, _ = await chosen(connection, tables, EventQuery(after=EventCursor(event.position, event.index)))
        batch, _ = await chosen(connection, tables, EventQuery(after=EventCursor(event.position)))

        assert behind == everything[number:]
        assert batch == [one for one in everything if one.position > event.position]


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2_000)


@settings(deadline=None)
@given(NAMES, NAMES, st.sampled_from(["succeeded", "failed"]))
def test_summaries_made_before_a_series_was_there_deny_none_of_its_events(func: str, queue: str, state: str) -> None:
    newer = [one.key for one in job_series(func, queue, state) if one.key.endswith((":total_time", ":attempts"))]
    before = _job_tokens(func, queue, state)

    assert len(newer) == 3
    for key in newer:
        assert token("key", key) not in before
        assert all(before.intersection(clause) for clause in EventQuery(key=key).wanted().clauses)
        assert all(before.intersection(clause) for clause in EventQuery(prefix=key).wanted().clauses)
