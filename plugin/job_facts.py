"""What of a job goes into the log: its names and times, how it failed, and the meta the user asked for."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import msgspec
from chancy import QueuedJob

from chancy_metrics.events.facts import Combo, JobRow, microseconds

_CHAINED = re.compile(
    "^(?:The above exception was the direct cause of the following exception"
    "|During handling of the above exception, another exception occurred):$",
    re.MULTILINE,
)
_TRACEBACK = "Traceback (most recent call last):"
#: The first line that is not part of the stack; "| " begins it where the error is a group.
_ERROR_TYPE = re.compile(r"^(?:  \| )?([^\W\d][\w.<>]*)(:.*|$)", re.MULTILINE)
_MAX_ERROR = 200


def job_row(job: QueuedJob, keep_meta: tuple[str, ...], error_messages: bool = False) -> JobRow:
    """Take the facts of a job update; never its arguments, result or traceback.

    Args:
        error_messages: Keep what the error says too, up to the end of its first line.
    """
    completed = None if job.completed_at is None else microseconds(job.completed_at)
    created = microseconds(job.created_at)
    # By place, not by name: this runs for every job, and takes a quarter less so.
    return JobRow(
        job.id.bytes,
        Combo(job.func, job.queue, job.state.value, job.attempts, _error(job, error_messages) if job.errors else ""),
        time.time_ns() // 1000 if completed is None else completed,
        created,
        created if job.scheduled_at is None else microseconds(job.scheduled_at),
        None if job.started_at is None else microseconds(job.started_at),
        completed,
        _kept(job.meta, keep_meta) if keep_meta else b"",
    )


def _error(job: QueuedJob, with_message: bool) -> str:
    """Name of the exception that ended this attempt, by its traceback, the last of a chain; "" if none did."""
    if job.state is QueuedJob.State.SUCCEEDED:
        return ""
    last: object = job.errors[-1]
    text = str(last.get("traceback", "")) if isinstance(last, dict) else ""
    found = _ERROR_TYPE.search(_CHAINED.split(text)[-1].partition(_TRACEBACK)[2])
    if not found:
        return ""
    if not with_message:
        return found[1][:_MAX_ERROR]
    # What a batch can't hold would cost all of it.
    line = (found[1] + found[2]).replace("\x00", "\ufffd").encode(errors="replace").decode()
    return line.rstrip()[:_MAX_ERROR]


def _kept(meta: dict[str, Any], keep: tuple[str, ...]) -> bytes:
    kept = {key: meta[key] for key in keep if key in meta}
    if not kept:
        return b""
    try:
        return msgspec.msgpack.encode(kept)
    except Exception:  # JSON holds what MessagePack does not: whole numbers past 64 bits
        return msgspec.msgpack.encode({key: json.dumps(value) for key, value in kept.items()})
