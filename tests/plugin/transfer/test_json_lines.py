"""Lines made of columns are, byte for byte, those of events encoded one by one."""

from __future__ import annotations

import json
import uuid

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy_metrics.events.facts import EPOCH, FIRST_US
from chancy_metrics.plugin.host.escape import json_line
from chancy_metrics.plugin.transfer.json_lines import json_lines, moment_texts, uuid_texts
from chancy_metrics.projections.search.columns import LAST_US
from chancy_metrics.projections.search.event import to_events
from tests.factories import NOON_US, a_row, a_run
from tests.projections.search.test_columns import BATCHES, Facts, matches, moment


def text_of(characters: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    return [bytes(row).replace(b"\0", b"").decode() for row in characters]


@settings(deadline=None, max_examples=60)
@given(BATCHES)
def test_lines_are_those_of_events_encoded_one_by_one(facts: list[Facts]) -> None:
    found = matches(facts)

    lines = json_lines(found)

    assert lines.decode() == "".join(json_line(event) + "\n" for event in to_events(found))


@given(st.lists(st.integers(FIRST_US, LAST_US) | st.sampled_from([FIRST_US, LAST_US, -1, 0, NOON_US]), min_size=1))
def test_moments_are_written_as_msgspec_writes_them(us: list[int]) -> None:
    assert text_of(moment_texts(np.array(us))) == [msgspec.json.encode(moment(one)).decode()[1:-1] for one in us]


@given(st.lists(st.uuids() | st.just(uuid.UUID(int=0)), min_size=1))
def test_uuids_are_written_as_python_writes_them(ids: list[uuid.UUID]) -> None:
    assert text_of(uuid_texts(b"".join(one.bytes for one in ids))) == list(map(str, ids))


def test_a_line_has_the_fields_that_its_event_has() -> None:
    job = a_row(NOON_US, state="failed", meta=msgspec.msgpack.encode({"customer": 4}))
    facts: Facts = ([job], [a_run("app:n", [2.5])], NOON_US, "w\x1b")

    update, observation = map(json.loads, json_lines(matches([facts])).splitlines())

    assert update["meta"] == {"customer": 4}
    assert update["job_id"] == str(uuid.UUID(bytes=job.job_id))
    assert (update["run_s"], update["wait_s"]) == (0.5, 1.0)
    assert observation == {
        "position": 1,
        "index": 1,
        "at": f"{EPOCH.replace(year=2026, month=3, day=10, hour=12):%Y-%m-%dT%H:%M:%SZ}",
        "kind": "counter",
        "worker": "w\x1b",
        "producer": str(uuid.UUID(int=1)),
        "key": "app:n",
        "unit": "count",
        "value": 2.5,
    }


def test_no_event_is_no_line() -> None:
    assert json_lines([]) == b""
