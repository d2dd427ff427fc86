"""Runs the benchmarks: `python -m bench [--only NAME] [--smoke] [--json]` from the repository's folder."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import time
from collections.abc import Sequence

from .database import SETTINGS, databases
from .harness import Row, Size
from .report import as_json, machine, print_table

SUBJECTS = (
    "record",
    "job",
    "flush",
    "append",
    "fold",
    "cells",
    "advance",
    "verify",
    "rebuild",
    "parallel",
    "prune",
    "archives",
    "totals",
    "proof",
    "read",
    "delay",
    "page",
    "freshness",
    "audit",
    "disk",
    "upkeep",
    "segments",
    "mix",
    "queues",
    "views",
    "memory",
    "start",
)
FINE = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; a benchmark that did not do what it measures raises."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the plugin costs, against what.")
    parser.add_argument("--only", action="append", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: shows that everything runs, measures nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    size = Size(options.smoke)
    rows: list[Row] = []
    explained: dict[str, str] = {}
    began = time.monotonic()
    with databases() as pool:
        for name in SUBJECTS:
            if options.only and name not in options.only:
                continue
            started = time.monotonic()
            module = importlib.import_module(f".{name}", __package__)
            explained[name] = " ".join((module.__doc__ or "").split())
            rows += asyncio.run(module.run(pool, size))
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
    about = machine() | {"postgresql": ", ".join(f"{name}={value}" for name, value in SETTINGS.items())}
    about |= {"smoke": options.smoke, "took_s": round(time.monotonic() - began)}
    if options.json:
        print(as_json(rows, about))
    else:
        print_table(rows, about, explained)
    return FINE


if __name__ == "__main__":
    sys.exit(main())
