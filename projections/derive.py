"""What the user's rules make of a batch, as if its producer had recorded it there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.columns import DecodedBatch, JobColumns, ObservationColumns
from chancy_metrics.events.errors import RuleFailed

from .job_times import believed
from .rules import Derived, RuleSet, name_of


class Made(NamedTuple):
    """Observations that a rule made, and of which job update each."""

    rows: NDArray[np.int64]
    columns: ObservationColumns


def derive(batch: DecodedBatch, rules: RuleSet, appended_us: int) -> DecodedBatch:
    """Return *batch* with what *rules* make of its job updates behind its own observations, rule after rule.

    Rules see times that are never after *appended_us*, as the built-in ones do.

    Raises:
        RuleFailed: A rule raised, or made something that is no observation of these updates.
    """
    if batch.jobs is None or not rules.rules:
        return batch
    parts = [] if batch.observations is None else [batch.observations]
    parts += [made.columns for made in made_of(batch.jobs, rules, appended_us)]
    return batch._replace(observations=_together(parts)) if parts else batch


def made_of(jobs: JobColumns, rules: RuleSet, appended_us: int) -> list[Made]:
    """Return what *rules* make of job updates, rule after rule; raises as `derive` does."""
    found: list[Made] = []
    jobs = believed(jobs, appended_us)
    for rule in rules.rules:
        try:
            made = [_observations(derived, jobs) for derived in _made(rule(jobs))]
            found += [one for one in made if len(one.rows)]
        except Exception as error:  # whatever the user's code raises is this batch's misfortune, not the fold's
            raise RuleFailed(f"rule {name_of(rule)!r} failed: {type(error).__name__}: {error}") from error
    return found


def _made(result: object) -> Iterator[Derived]:
    for derived in result or ():  # type: ignore[attr-defined] # a rule that returns None makes nothing
        if not isinstance(derived, Derived):
            raise TypeError(f"a rule makes Derived.counter(), .gauge() or .histogram(), not {derived!r:.80}")
        yield derived


def _observations(derived: Derived, jobs: JobColumns) -> Made:
    rows, values = np.broadcast_arrays(np.atleast_1d(derived.rows), np.asarray(derived.values, np.float64))
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(f"rows of {derived.series.key!r} must be whole numbers of job updates, got {rows!r:.80}")
    if rows.size and not (int(rows.min()) >= 0 and int(rows.max()) < len(jobs.at_us)):
        raise ValueError(f"rows of {derived.series.key!r} must be within 0 and {len(jobs.at_us) - 1}")
    if not np.isfinite(values).all():
        raise ValueError(f"values of {derived.series.key!r} must be finite")
    rows = rows.astype(np.int64)
    return Made(rows, ObservationColumns([derived.series], np.array([rows.size]), jobs.at_us[rows], values))


def _together(parts: list[ObservationColumns]) -> ObservationColumns:
    return ObservationColumns(
        [series for part in parts for series in part.series],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ObservationColumns._fields[1:]),
    )
