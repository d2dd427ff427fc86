"""Apply the user's rules to the job updates of a batch; their observations are added as if they were recorded."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.batch import DecodedBatch, JobColumns, ObservationColumns
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.projections.rules.job_times import believed
from chancy_metrics.projections.rules.reserved import refuse_reserved
from chancy_metrics.projections.rules.rule_set import Derived, RuleSet, name_of


class Made(NamedTuple):
    """Observations that a rule made, and the row of the job update that each was made of."""

    rows: NDArray[np.int64]
    columns: ObservationColumns


class Derivation(NamedTuple):
    """The result of rules on one batch.

    Attributes:
        made: Observations, rule after rule; none of those that failed.
        failed: Name of a rule that raised, or made something that is no observation -> error.
    """

    made: list[Made]
    failed: dict[str, str]


def derive(
    batch: DecodedBatch, rules: RuleSet, appended_us: int, without: Set[str] = frozenset()
) -> tuple[DecodedBatch, dict[str, str]]:
    """Return *batch* with the observations that *rules* make of its job updates appended to its own.

    Rules see times that are never after *appended_us*, as the built-in ones do.

    Returns:
        The batch, and the rules that failed on it (name -> error), of which it has no observations.
    """
    if batch.jobs is None or not rules.rules:
        return batch, {}
    found = made_of(batch.jobs, rules, appended_us, without)
    parts = [] if batch.observations is None else [batch.observations]
    parts += [made.columns for made in found.made]
    return (batch._replace(observations=_together(parts)) if parts else batch), found.failed


def made_of(jobs: JobColumns, rules: RuleSet, appended_us: int, without: Set[str] = frozenset()) -> Derivation:
    """Call each of *rules*, but for those named in *without*, with job updates."""
    found = Derivation([], {})
    jobs = believed(jobs, appended_us)
    for rule in rules.rules:
        name = name_of(rule)
        if name in without:
            continue
        try:
            made = [_observations(derived, jobs) for derived in _made(rule(jobs))]
            found.made.extend(one for one in made if len(one.rows))
        except (MemoryError, KeyboardInterrupt):  # not the fault of the batch: the next attempt may succeed
            raise
        except BaseException as error:  # whatever the user's code raises, SystemExit too, only its metrics are missing
            found.failed[name] = in_words(error)
    return found


def _made(result: object) -> Iterator[Derived]:
    for derived in result or ():  # type: ignore[attr-defined] # a rule that returns None makes nothing
        if not isinstance(derived, Derived):
            raise TypeError(f"a rule makes Derived.counter(), .gauge() or .histogram(), not {derived!r:.80}")
        yield derived


def _observations(derived: Derived, jobs: JobColumns) -> Made:
    refuse_reserved(derived.series)
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
