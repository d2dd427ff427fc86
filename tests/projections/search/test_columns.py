"""Events by columns are the recorded facts one by one, whatever batches and times they have."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events.batch import LogBatch, ObservationRun
from chancy_metrics.events.codec import decode_batch, encode
from chancy_metrics.events.facts import EPOCH, FIRST_US, Combo, JobRow
from chancy_metrics.projections.search.columns import LAST_US, Matches
from chancy_metrics.projections.search.event import Event, to_events
from chancy_metrics.projections.search.match import matching
from chancy_metrics.projections.search.query import EventQuery
from chancy_metrics.projections.search.scan import Page
from tests.factories import NOON_US, a_run
from tests.projections.search.test_query import fits, selections

DAY_US = 86_400_000_000
NEAR_US = st.integers(-3 * DAY_US, 3 * DAY_US).map(lambda by: NOON_US + by)
FULL_US = st.integers(-20, 20).map(lambda second: NOON_US + second * 1_000_000)
#: The first and last times that a datetime can hold, and others.
FAR_US = st.sampled_from([FIRST_US - 10**15, FIRST_US, LAST_US, LAST_US + 10**15])
AT_US = NEAR_US | FULL_US | st.sampled_from([FIRST_US, 0, LAST_US, LAST_US + 10**15])
TEXTS = st.sampled_from(["", "app.work", "mail", "failed", "retrying", 'a"b\\', "é\u202e\x1b", "\U0001f600", "x" * 300])
META = st.sampled_from([b"", b"\x80", b"\xc1", msgspec.msgpack.encode({"customer": 4, "plan": "gold\u202e\x00"})])
JOBS = st.builds(
    lambda number, combo, at_us, created_us, scheduled_us, started_us, completed_us, meta: JobRow(
        number.bytes, combo, at_us, created_us, scheduled_us, started_us, completed_us, meta
    ),
    st.uuids() | st.sampled_from([uuid.UUID(int=0), uuid.UUID(int=1 << 120)]),
    st.builds(Combo, TEXTS, TEXTS, TEXTS, st.sampled_from([1, 0, -(2**63), 2**63 - 1]), TEXTS),
    AT_US,
    *(NEAR_US | FULL_US | FAR_US,) * 2,
    *(st.none() | NEAR_US | FULL_US | FAR_US,) * 2,
    META,
)
RUNS = st.builds(
    lambda key, kind, unit, pairs: a_run(key, [value for _, value in pairs], kind=kind, unit=unit)._replace(
        at_us=[at_us for at_us, _ in pairs]
    ),
    st.sampled_from(["app", "app:n", "é\u202e", "x" * 300]),
    st.sampled_from(["counter", "gauge", "histogram"]),
    st.sampled_from(["count", "€"]),
    st.lists(
        st.tuples(AT_US, st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, 1e16, 1e-7, 5e-324])),
        min_size=1,
        max_size=4,
    ),
)
BATCHES = st.lists(
    st.tuples(
        st.lists(JOBS, max_size=5), st.lists(RUNS, max_size=3), NEAR_US | FULL_US, st.sampled_from(["w1", "é\t"])
    ),
    max_size=4,
)

Facts = tuple[list[JobRow], list[ObservationRun], int, str]


def log_batch(position: int, facts: Facts) -> LogBatch:
    jobs, runs, appended_us, worker = facts
    made = encode(jobs, runs)
    producer = uuid.UUID(int=position)
    return LogBatch(position, producer, 1, worker, appended_us, made.events, made.codec, made.payload, made.sha256)


def matches(facts: Sequence[Facts], query: EventQuery = EventQuery()) -> list[Matches]:  # noqa: B008 # frozen
    """What a search finds in batches of these facts, which are at positions from 1 on."""
    return [match for position, one in enumerate(facts, 1) for match in matches_at(position, one, query)]


def matches_at(position: int, facts: Facts, query: EventQuery = EventQuery()) -> list[Matches]:  # noqa: B008 # frozen
    """The same of one batch."""
    batch = log_batch(position, facts)
    decoded = decode_batch(batch)
    indexes = matching(query, batch, decoded)
    return [Matches(batch, decoded, indexes).with_meta()] if len(indexes) else []


def expected(facts: Sequence[Facts]) -> list[Event]:
    """The oracle: each fact by itself, in plain Python."""
    events = []
    for position, (jobs, runs, appended_us, worker) in enumerate(facts, 1):
        producer = uuid.UUID(int=position)
        events += [
            Event(
                position,
                index,
                moment(min(row.at_us, appended_us)),
                "job",
                worker,
                producer,
                **of_job(row, appended_us),
            )
            for index, row in enumerate(jobs)
        ]
        observed = [(run, at_us, value) for run in runs for at_us, value in zip(run.at_us, run.values, strict=True)]
        events += [
            Event(
                position, index, moment(min(at_us, appended_us)), run.series.kind, worker, producer, *values(run, value)
            )
            for index, (run, at_us, value) in enumerate(observed, len(jobs))
        ]
    return events


def values(run: ObservationRun, value: float) -> tuple[str, str, float]:
    return run.series.key, run.series.unit, value


def of_job(row: JobRow, appended_us: int) -> dict[str, Any]:
    func, queue, state, attempt, error = row.combo
    run_s = wait_s = None
    if row.started_us is not None:
        started_us = min(row.started_us, appended_us)
        if row.completed_us is not None:
            run_s = seconds(min(row.completed_us, appended_us) - started_us)
        if state != "retrying":
            wait_s = seconds(started_us - max(row.created_us, row.scheduled_us))
    try:
        meta, damage = msgspec.msgpack.decode(row.meta) if row.meta else {}, ""
    except msgspec.DecodeError as fault:
        meta, damage = {}, f"it is no kept meta: {fault}"
    return {
        "job_id": uuid.UUID(bytes=row.job_id),
        "func": func,
        "queue": queue,
        "state": state,
        "attempt": attempt,
        "error": error,
        "created_at": moment(row.created_us),
        "scheduled_at": moment(row.scheduled_us),
        "started_at": None if row.started_us is None else moment(row.started_us),
        "completed_at": None if row.completed_us is None else moment(row.completed_us),
        "run_s": run_s,
        "wait_s": wait_s,
        "meta": meta,
        "damage": damage,
    }


def seconds(took_us: int) -> float:
    return min(max(took_us, 0), 2**52) / 1e6


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=min(max(us, FIRST_US), LAST_US))


@settings(deadline=None, max_examples=60)
@given(BATCHES)
def test_events_by_columns_are_the_facts_one_by_one(facts: list[Facts]) -> None:
    assert to_events(matches(facts)) == expected(facts)


@settings(deadline=None, max_examples=60)
@given(BATCHES, selections.map(lambda query: msgspec.structs.replace(query, after=None)))
def test_a_query_takes_the_columns_of_the_events_that_fit(facts: list[Facts], query: EventQuery) -> None:
    in_range = msgspec.structs.replace(query, first_position=None, last_position=None)

    found = to_events(matches(facts, in_range))

    assert found == [event for event in expected(facts) if fits(in_range, event)]


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.data())
def test_a_page_is_cut_after_any_event(facts: list[Facts], data: st.DataObject) -> None:
    found = matches(facts)
    events = to_events(found)
    page = Page(EventQuery().start_cursor, found, [])
    limit = data.draw(st.integers(1, len(events) + 1))

    cut = page.cut(limit)

    assert (page.events, cut.events) == (len(events), min(limit, len(events)))
    assert cut.to_events() == events[:limit]
    if limit < len(events):
        assert (cut.cursor.position, cut.cursor.index) == (events[limit - 1].position, events[limit - 1].index)


def test_events_of_a_part_of_a_batch_have_their_own_ids_and_meta() -> None:
    rows = [JobRow(bytes([number]) * 16, Combo("f", "q", "s", 1, ""), NOON_US, 0, 0, 0, 0, b"") for number in range(4)]
    rows[3] = rows[3]._replace(meta=msgspec.msgpack.encode({"a": 1}))
    [whole] = matches([(rows, [], NOON_US, "w1")])

    part = whole.only(np.array([1, 3]))

    assert [event.job_id for event in to_events([part])] == [uuid.UUID(bytes=rows[index].job_id) for index in (1, 3)]
    assert [event.meta for event in to_events([part])] == [{}, {"a": 1}]
    assert to_events([whole.only(np.array([1]))])[0].meta == {}
