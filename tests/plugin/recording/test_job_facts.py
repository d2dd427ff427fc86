"""The facts of a job: what goes into the log, and what never does."""

from __future__ import annotations

import time
import traceback
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from chancy import QueuedJob
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.facts import Combo, JobRow, microseconds
from chancy_metrics.events.kept_meta import decode_meta, encode_meta
from chancy_metrics.plugin.recording.job_facts import job_facts
from tests.factories import a_job

State = QueuedJob.State


def job_row(job: QueuedJob, keep_meta: tuple[str, ...], error_messages: bool = False) -> JobRow:
    (row,) = job_facts([job], keep_meta, error_messages).rows()
    return row


def failed(error: BaseException) -> QueuedJob:
    text = "".join(traceback.format_exception(error))
    return a_job(state=State.FAILED, errors=[{"attempt": 0, "traceback": text}])


class Custom(Exception):
    pass


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def local() -> BaseException:
    class Inner(Exception):
        pass

    return Inner("x")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("x"), "ValueError"),
        (ValueError(), "ValueError"),
        (ValueError("several\nlines: of\nKeyError: text"), "ValueError"),
        (RuntimeError("elsewhere:\nTraceback (most recent call last):\n  File x\nKeyError: 1"), "RuntimeError"),
        (Custom("x"), f"{__name__}.Custom"),
        (local(), f"{__name__}.local.<locals>.Inner"),
        (psycopg.errors.UniqueViolation("x"), "psycopg.errors.UniqueViolation"),
        (ExceptionGroup("several", [raised(ValueError("a")), raised(KeyError("b"))]), "ExceptionGroup"),
        (SyntaxError("bad", ("file.py", 1, 1, "text", 1, 2)), "SyntaxError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_type_of_an_error_is_read_from_its_traceback(error: BaseException, name: str) -> None:
    assert job_row(failed(raised(error)), ()).combo.error == name
    assert job_row(failed(raised(error, cause=raised(OSError("cause")))), ()).combo.error == name


@pytest.mark.parametrize(
    "errors", [[], [{}], [{"attempt": 0, "traceback": None}], ["text"], [{"traceback": "garbage"}]]
)
def test_an_error_without_a_traceback_has_no_type_and_costs_no_update(errors: list[Any]) -> None:
    assert job_row(a_job(state=State.FAILED, errors=errors), ()).combo.error == ""


def test_the_facts_of_a_job_are_its_times_its_names_and_nothing_of_its_arguments() -> None:
    job = a_job(
        kwargs={"password": "secret"}, meta={"tenant": 7, "token": "secret"}, func="app.f", queue="q", attempts=2
    )

    row = job_row(job, ("tenant", "absent"))

    assert row.combo == Combo("app.f", "q", "succeeded", 2, "")
    assert row.job_id == job.id.bytes
    assert (row.created_us, row.scheduled_us) == (microseconds(job.created_at), microseconds(job.scheduled_at))
    assert (row.started_us, row.completed_us) == (microseconds(job.started_at), microseconds(job.completed_at))
    assert row.at_us == row.completed_us
    assert msgspec.msgpack.decode(row.meta) == {"tenant": 7}
    assert b"secret" not in repr(row).encode()
    assert job_row(job, ()).meta == b""


def test_a_retrying_update_has_no_completion_and_the_hooks_time() -> None:
    before = time.time_ns() // 1000

    row = job_row(a_job(state=State.RETRYING, completed_at=None), ())

    assert row.completed_us is None
    assert before <= row.at_us <= time.time_ns() // 1000


def test_a_success_after_failures_has_no_error_type() -> None:
    job = failed(raised(ValueError("x")))

    assert job_row(a_job(errors=job.errors), ()).combo.error == ""


def test_meta_that_messagepack_has_no_number_for_is_kept_as_json() -> None:
    row = job_row(a_job(meta={"n": 2**70, "s": "x"}), ("n", "s"))

    assert msgspec.msgpack.decode(row.meta) == {"n": str(2**70), "s": '"x"'}


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ValueError("no such customer: 7\nand more"), "ValueError: no such customer: 7"),
        (ValueError(), "ValueError"),
        (ValueError("a\x00b\ud800"), "ValueError: a\ufffdb?"),
        (ValueError("x" * 500), f"ValueError: {'x' * 188}"),
    ],
)
def test_what_an_error_says_is_kept_only_where_it_was_asked_for(error: BaseException, kept: str) -> None:
    row = job_row(failed(raised(error)), (), error_messages=True)

    assert row.combo.error == kept
    assert job_row(failed(raised(error)), ()).combo.error == "ValueError"
    encoded = encode([row])
    assert decode(encoded.codec, encoded.payload, encoded.sha256, 1).jobs is not None


def _times(missing: bool) -> st.SearchStrategy[datetime | None]:
    known = st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")]))
    return st.none() | known if missing else known


JOBS = st.lists(
    st.builds(
        a_job,
        func=st.sampled_from(["app.a", "app.b"]),
        state=st.sampled_from([State.SUCCEEDED, State.RETRYING]),
        created_at=_times(missing=False),
        scheduled_at=_times(missing=True),
        started_at=_times(missing=True),
        completed_at=_times(missing=True),
        meta=st.sampled_from([{}, {"tenant": 7}]),
    ),
    min_size=1,
)


@given(JOBS)
def test_many_jobs_at_once_have_the_facts_of_each_alone(jobs: list[QueuedJob]) -> None:
    facts = job_facts(jobs, ("tenant",))

    rows = facts.rows()
    for job, row in zip(jobs, rows, strict=True):
        alone = job_row(job, ("tenant",))
        # An update without an end happens now.
        assert row == (alone if job.completed_at else alone._replace(at_us=row.at_us))
        assert row.started_us == (job.started_at and microseconds(job.started_at))
        assert row.completed_us == (job.completed_at and microseconds(job.completed_at))
        assert row.scheduled_us == microseconds(job.scheduled_at or job.created_at)
    assert encode(facts) == encode(rows)


@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=6),
    most=st.integers(1, 300),
)
def test_of_too_much_kept_meta_the_keys_that_fit_stay_in_their_order(sizes: list[int], most: int) -> None:
    meta = {f"k{number}": "x" * size for number, size in enumerate(sizes)}
    keep = tuple(reversed(meta))
    whole = len(encode_meta(meta))

    facts = job_facts([a_job(meta=meta), a_job()], keep, max_meta_bytes=most)

    kept = facts.meta.get(0, b"")
    found = list(decode_meta(kept)) if kept else []
    assert len(kept) <= most
    assert facts.cut_meta == (whole > most) == (len(found) < len(meta))
    assert found == [key for key in keep if key in found]
    for key in set(meta) - set(found):  # it did not fit beside those before it
        before = {one: meta[one] for one in [*found[: sum(keep.index(one) < keep.index(key) for one in found)], key]}
        assert len(encode_meta(before)) + 4 > most


def test_a_batch_of_jobs_has_room_for_so_much_meta() -> None:
    jobs = [a_job(meta={"small": 1, "large": "x" * 1_000_000}) for _ in range(20)]

    facts = job_facts(jobs, ("small", "large"), max_meta_bytes=1 << 20)
    batch = encode(facts)

    assert [len(decode_meta(facts.meta[number])) for number in range(20)] == [2] * 16 + [1] * 4
    assert facts.cut_meta == 4
    assert decode(batch.codec, batch.payload, batch.sha256, batch.events).counts == {"cut:meta": 4}
