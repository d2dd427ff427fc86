"""The rows as one table, with rich where it is installed, or as one JSON object."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .harness import Row

_COLUMNS = ("work", "ours", "against", "floor", "ratio", "target", "")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("chancy-metrics", "chancy", "numpy", "psycopg")},
    }


def as_json(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """One object: what *about* says, and the rows."""
    return json.dumps(
        about
        | {
            "rows": [
                row._asdict() | {"target": row.target and row.target.text, "ratio": row.ratio, "met": row.met}
                for row in rows
            ]
        },
        indent=2,
    )


def print_table(rows: Sequence[Row], about: dict[str, Any], explained: dict[str, str]) -> None:
    """Print the table, then what each subject measures and the machine's name."""
    if about["smoke"]:
        rows = [row._replace(target=None) for row in rows]  # such sizes show nothing
    cells = [(row.subject, *_cells(row)) for row in rows]
    try:
        _rich(cells)
    except ImportError:
        _plain(cells)
    for subject, sentence in explained.items():
        print(f"{subject}: {sentence}")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    judged = [row.met for row in rows if row.met is not None]
    if about["smoke"]:
        print("smoke run: the figures mean nothing")
    elif judged:
        print(f"{sum(judged)} of {len(judged)} targets met")


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return (
        row.work,
        f"{_number(row.ours)} {row.unit} ({row.statistic})",
        row.against,
        "" if row.floor is None else f"{_number(row.floor)} {row.unit}",
        _ratio(row.ratio),
        row.target.text if row.target else "",
        verdict,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"1/{1 / ratio:.3g}" if 0 < ratio < 0.4 else f"{ratio:.3g}"


def _rich(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("ours", "floor", "ratio", "target") else "left")
    subject = ""
    for row in rows:
        if row[0] != subject:
            table.add_section()
            subject = row[0]
        style = {"MISSED": "red", "met": "green"}.get(row[-1], "")
        table.add_row(*row[1:-1], f"[{style}]{row[-1]}[/]" if style else "")
    # Wide enough for the rows when the output goes into a file.
    Console(width=None if sys.stdout.isatty() else 170).print(table)


def _plain(rows: list[tuple[str, ...]]) -> None:
    lines = [_COLUMNS, *(row[1:] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
