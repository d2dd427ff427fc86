"""The script that measures how long things take as the log grows still runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT


def test_every_figure_is_there(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"

    command = [sys.executable, "-m", "bench.scale", "--updates", "10000", "--json", str(figures)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)

    found = json.loads(figures.read_text())
    works = {one["work"] for one in found}
    assert {"append a batch", "fold", "rebuild", "audit job", "explain 5min", "prune a day"} <= works
    assert all(one["figure"] > 0 for one in found)
