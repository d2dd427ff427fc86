"""What becomes a key or an indexed text is bounded where it is recorded, and asked for in the same way."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import MAX_KEY_BYTES, MAX_WORKER_BYTES, bounded_worker
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.events import events
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.marks import mark
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.search.query import EventQuery
from tests.factories import LogWriter, a_row, an_app, fetch, now_us

#: Longer than an index entry may be, and no compression makes it shorter.
LONG = "".join(random.Random(1).choices(string.ascii_letters, k=4_000))


@pytest.mark.parametrize("name", ["w", "é" * 600, "€" * 342, LONG, LONG[:-1] + "!", "a\x00b", "a\ud800b", ""])
def test_a_worker_s_id_is_cut_once_and_for_all(name: str) -> None:
    cut = bounded_worker(name)

    assert len(cut.encode()) <= MAX_WORKER_BYTES and "\x00" not in cut
    assert bounded_worker(cut) == cut


def test_long_ids_stay_apart() -> None:
    assert bounded_worker(LONG) != bounded_worker(LONG[:-1] + "!")
    assert bounded_worker("w" * 1_024) == "w" * 1_024


def test_every_long_name_of_a_job_makes_keys_that_can_be_stored() -> None:
    for names in ((LONG, "q", "failed"), ("f", LONG, "failed"), ("f", "q", LONG), (LONG, LONG, LONG)):
        assert all(len(series.key.encode()) <= MAX_KEY_BYTES for series in job_series(*names))


async def test_names_of_4000_letters_are_recorded_folded_and_found(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn) as (chancy, metrics):
        async with metrics.recording(chancy, worker_id=LONG):
            await metrics.increment_counter("app:n", 2)
        await LogWriter(connection, tables, LONG).append(jobs=[a_row(now_us(), func=LONG, state="retrying")])
        await mark(chancy, "deploy", by=LONG[::-1])
        done = await fold_all(chancy, "日" * 4_000)  # more than a NOTIFY has room for

        of_worker = await metrics.get_metrics(chancy, "app:n", worker_id=LONG)
        explained = await explain(chancy, "app:n", datetime.now(UTC), resolution="1day", worker_id=LONG)
        found = [event async for event in events(chancy, EventQuery(worker=LONG))]
        checked = await verify(chancy)

    assert (done.reason, await fetch(connection, "SELECT * FROM {dead_letters}", tables)) == (None, [])
    assert [value for _, value in of_worker["app:n"].values_1day] == [2]
    assert explained.stored is not None and (explained.stored.sum, explained.equal, explained.events) == (2, True, 1)
    assert [event.kind for event in found] == ["counter", "job"]
    assert {event.worker for event in found} == {bounded_worker(LONG)}
    assert checked.drift == 0


async def test_a_mark_is_refused_where_no_batch_could_hold_it(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        with pytest.raises(MetricsLogError, match="out of bounds"):
            await mark(chancy, "deploy", at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))))
        with pytest.raises(MetricsLogError, match="at most 1024"):
            await mark(chancy, LONG)
        assert (await fold_all(chancy)).batches == 0
