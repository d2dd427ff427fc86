"""The plots of docs/scale.md, from what `bench.scale`, `bench.producers` and `bench.cardinality` wrote with --json:
`python -m bench.plots FOLDER [--scale FILE...] [--producers FILE] [--cardinality FILE...]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_FLAT = ("append a batch", "poll", "fold a batch", "status", "explain 5min", "explain 1hour", "audit job")
_RATES = ("fold", "summarise", "audit check", "rebuild")
_SIZES = ("log on disk", "rollups on disk")
_MEMORY = ("recorder: memory, all of it buffered", "projector: memory at its most", "reader: memory of the copy")
_TIMES = (
    "projector: all series new, all steps",
    "projector: a fold of 1,000 known series",
    "reader: first load",
    "status",
)
Figures = Sequence[Mapping[str, Any]]


def _scale(figures: Figures, path: Path) -> None:
    """How each thing goes with the length of the log: flat, or at one rate."""
    figure, (flat, rates, sizes) = plt.subplots(1, 3, figsize=(13, 5))
    _lines(flat, figures, "updates", _FLAT, 1_000)
    flat.set(title="what should be flat", ylabel="ms", yscale="log")
    _lines(rates, figures, "updates", _RATES, 1 / 1_000)
    rates.set(title="what reads everything", ylabel="thousand job updates a second", ylim=(0, None))
    _lines(sizes, figures, "updates", _SIZES, 1)
    sizes.set(title="space", ylabel="MB", yscale="log")
    for axes in (flat, rates, sizes):
        axes.set(xscale="log", xlabel="job updates in the log")
    figure.savefig(path)


def _cardinality(figures: Figures, path: Path) -> None:
    """Memory and time by the number of series."""
    figure, (memory, times) = plt.subplots(1, 2, figsize=(10, 5))
    _lines(memory, figures, "series", _MEMORY, 1)
    memory.set(title="memory", ylabel="MB", yscale="log")
    _lines(times, figures, "series", _TIMES, 1)
    times.set(title="time", ylabel="s", yscale="log")
    for axes in (memory, times):
        axes.set(xscale="log", xlabel="series")
    figure.savefig(path)


def _producers(run: Mapping[str, Any], path: Path) -> None:
    """Lag, dead rows and sizes second by second; each phase has its ground."""
    samples = run["samples"]
    began = samples[0]["at_s"]
    minutes = [(one["at_s"] - began) / 60 for one in samples]
    rollups = ("1min", "5min", "1hour", "1day")
    figure, (lag, dead, sizes) = plt.subplots(3, 1, figsize=(9, 8), sharex=True)
    lag.plot(minutes, [one["waiting_s"] for one in samples], label="oldest event not folded")
    lag.set(ylabel="s", yscale="symlog", ylim=(0, None))
    for name, tables in {"pending": ("pending",), "rollups": rollups}.items():
        rows = [[one["tables"][table] for table in tables] for one in samples]
        dead.plot(minutes, [sum(table["dead"] for table in several) for several in rows], label=f"{name}: dead rows")
        sizes.plot(minutes, [sum(table["total_bytes"] for table in several) / 1e6 for several in rows], label=name)
    dead.set(ylabel="rows", yscale="symlog", ylim=(0, None))
    sizes.plot(minutes, [one["tables"]["pending"]["index_bytes"] / 1e6 for one in samples], label="pending's index")
    sizes.set(ylabel="MB", yscale="log", xlabel="minutes")
    for axes in (lag, dead, sizes):
        _phases(axes, [(minute, one["phase"]) for minute, one in zip(minutes, samples, strict=True)])
        axes.legend(fontsize="small", loc="upper left")
    figure.savefig(path)


def _lines(axes: Axes, figures: Figures, by: str, names: Sequence[str], unit: float) -> None:
    for name in names:
        found = sorted((one[by], one["figure"] * unit) for one in figures if one["work"] == name)
        if found:
            axes.plot(*zip(*found, strict=True), marker="o", label=name)
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _phases(axes: Axes, seen: Sequence[tuple[float, str]]) -> None:
    for number, (phase, several) in enumerate(groupby(seen, key=lambda one: one[1])):
        minutes = [minute for minute, _ in several]
        axes.axvspan(minutes[0], minutes[-1], color="black", alpha=0.03 + 0.05 * (number % 2))
        place = (minutes[0], 1.01 + 0.06 * (number % 2))  # by turns, since short phases have long names
        axes.annotate(phase, place, xycoords=("data", "axes fraction"), fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description="Draw what the others measured.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=Path, nargs="+", default=[], help="several runs are put together")
    parser.add_argument("--producers", type=Path)
    parser.add_argument("--cardinality", type=Path, nargs="+", default=[], help="several runs are put together")
    options = parser.parse_args()
    matplotlib.use("svg")
    plt.rcParams |= {
        "svg.hashsalt": "bench",
        "svg.fonttype": "none",
        "axes.grid": True,
        "grid.alpha": 0.3,
        "figure.constrained_layout.use": True,
    }
    if options.scale:
        _scale(_together(options.scale), options.folder / "scale.svg")
    if options.producers:
        _producers(json.loads(options.producers.read_text()), options.folder / "producers.svg")
    if options.cardinality:
        _cardinality(_together(options.cardinality), options.folder / "cardinality.svg")


def _together(files: Sequence[Path]) -> Figures:
    return [one for file in files for one in json.loads(file.read_text())]


if __name__ == "__main__":
    main()
