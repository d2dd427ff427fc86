"""Compute the figures of each phase of `bench.producers` from its samples and its processes' reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from chancy_metrics.events.schema import RESOLUTIONS

from .harness import percentile
from .sampling import Sample, add_up

#: Tables that are added up under one name.
_GROUPS = {
    "pending": ["pending"],
    "ledger": ["ledger"],
    "log": ["log"],
    "rollups": [*RESOLUTIONS, "worker_segments"],
    "producers": ["producers"],
    "head and versions": ["head", "versions"],
    "cache": ["cache"],
}
_APPEND_ONLY = ("ledger", "log")
_CORE = "% of a core: "
_FOLDING = "folding, % of the time"
#: What the projector's process speaks of.
_SAID = ("round", "sequence", "fold")
_MS = 1_000
_MB = 1e6
Took = Sequence[dict[str, Any]]
Said = Sequence[tuple[str, dict[str, Any]]]


class Phase(NamedTuple):
    """Figures by what they are, units included; of a phase too short for one of them it is missing."""

    name: str
    figures: dict[str, float]


def summarise(names: Sequence[str], samples: Sequence[Sample], projector: Said, load: Said) -> list[Phase]:
    """Make the figures of those phases that have two samples."""
    phases = []
    for name in names:
        mine = [sample for sample in samples if sample.phase == name]
        if len(mine) > 1:
            folding = [said for phase, said in projector if phase == name]
            figures = [
                *_of_load([said for phase, said in load if phase == name], mine[-1].at_s - mine[0].at_s),
                *_of_lag(mine),
                *_of_projector(*([said[what] for said in folding if what in said] for what in _SAID)),
                (_FOLDING, _share(mine, [said["fold"] for _, said in projector if "fold" in said])),
                *_of_tables(mine[0], mine[-1]),
                *_of_processes(mine),
            ]
            phases.append(Phase(name, dict(figures)))
    return phases


def print_phases(phases: Sequence[Phase]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(pad_edge=False)
    table.add_column("")
    for phase in phases:
        table.add_column(phase.name, justify="right")
    for what in dict.fromkeys(what for phase in phases for what in phase.figures):
        table.add_row(what, *(_number(phase.figures.get(what)) for phase in phases))
    Console(width=140).print(table)
    for phase in phases:
        shares = {what: share for what, share in phase.figures.items() if what.startswith(_CORE)}
        if shares:
            busiest = max(shares, key=lambda what: shares[what])
            folding = phase.figures.get(_FOLDING, 0)
            print(
                f"{phase.name}: {busiest.removeprefix(_CORE)} is the busiest, at {shares[busiest]:.0f} % of a core; "
                f"folding takes {folding:.0f} % of the time, of 50 % that it may take"
            )


def _of_load(said: Sequence[dict[str, Any]], seconds: float) -> Iterator[tuple[str, float]]:
    yield "updates/s appended", sum(one["updates"] for one in said) / seconds
    took_s = [took for one in said for took in one["took_s"]]
    yield "batches/s appended", len(took_s) / seconds
    yield from _spread("append, ms", [took * _MS for took in took_s])
    yield "appends begun late by at most, s", max((one["behind_s"] for one in said), default=0)


def _of_lag(samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    yield from _spread("lag, s", [sample.waiting_s for sample in samples])
    yield "lag at the end, s", samples[-1].waiting_s
    yield "without a fold, s, at most", max(sample.silent_s for sample in samples)
    yield "sequenced batches not folded, at most", max(sample.unfolded for sample in samples)
    yield from _spread("finding the oldest pending, ms", [sample.look_s * _MS for sample in samples])


def _of_projector(rounds: Took, sequences: Took, folds: Took) -> Iterator[tuple[str, float]]:
    for what, several in (("round", rounds), ("fold", folds)):
        begun = [one["at_s"] for one in several]
        yield from _spread(f"from {what} to {what}, s", [after - before for before, after in pairwise(begun)])
        yield from _spread(f"a {what}, s", [one["took_s"] for one in several])
    if folds:
        yield "updates/s while folding", sum(one["events"] for one in folds) / sum(one["took_s"] for one in folds)
    for name, wanted in (("sequence() past the hint", False), ("sequence() of all", True)):
        yield from _spread(f"{name}, ms", [one["took_s"] * _MS for one in sequences if one["sweep"] is wanted])


def _share(samples: Sequence[Sample], folds: Took) -> float:
    """Percent of the time from the first sample to the last one in which a fold was on its way."""
    first, last = samples[0].at_s, samples[-1].at_s
    inside = [min(last, one["at_s"] + one["took_s"]) - max(first, one["at_s"]) for one in folds]
    return float(100 * sum(max(0, seconds) for seconds in inside) / (last - first))


def _of_tables(first: Sample, last: Sample) -> Iterator[tuple[str, float]]:
    yield "ledger, rows", last.ledger
    for name, parts in _GROUPS.items():
        before, after = (add_up(sample.tables[part] for part in parts) for sample in (first, last))
        yield f"{name}, MB", after.total_bytes / _MB
        if name == "pending":
            yield "pending's index, MB", after.index_bytes / _MB
        if name not in _APPEND_ONLY:
            yield f"{name}, live rows", after.live
            yield f"{name}, dead rows", after.dead
            yield f"{name}, vacuumed", after.vacuums - before.vacuums
        inserted, updated = after.inserted - before.inserted, after.updated - before.updated
        if name == "rollups":
            yield "rollups, rows written/s", (inserted + updated) / (last.at_s - first.at_s)
        if updated:
            yield f"{name}, % HOT", 100 * (after.hot - before.hot) / updated


def _of_processes(samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    spent: Counter[str] = Counter()
    for sample in samples[1:]:
        spent.update(sample.cpu_s)
    seconds = samples[-1].at_s - samples[0].at_s
    yield "cores busy, this machine's other work included", spent.pop("machine") / seconds
    for name, cpu_s in sorted(spent.items()):
        if cpu_s / seconds > 0.005:
            yield _CORE + name, 100 * cpu_s / seconds


def _spread(name: str, values: list[float]) -> Iterator[tuple[str, float]]:
    if values:
        yield f"{name}, p50", percentile(values, 0.5)
        yield f"{name}, p99", percentile(values, 0.99)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
