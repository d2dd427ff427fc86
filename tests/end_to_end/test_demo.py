"""The demo as a stranger runs it, only shorter."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest

from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from examples.demo import proof
from examples.demo.browser import RANGES_S, Answer, Point, Series
from examples.demo.rebuilding import Rebuild, rebuild_verdict
from examples.demo.sightings import COUNTERS, Fault, Sightings
from tests.processes import ROOT

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def demo() -> Iterator[Demo]:
    """Start a short demo with more arguments; afterwards no process and no folder of it is left."""
    mark = f"DEMO_TEST={uuid4()}"
    folder = Path(tempfile.mkdtemp(prefix="dt-", dir="/tmp"))
    folder.chmod(0o755)  # PostgreSQL does not run as root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "examples.demo", "--seconds=4", "--minimum=300", f"--port={port}", *arguments],
            cwd=ROOT,
            env=os.environ | dict([mark.split("=")]) | {"TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    yield start

    assert [command_of(process) for process in Path("/proc").glob("[0-9]*") if has(process, mark)] == []
    assert list(folder.glob("demo-*")) == []
    shutil.rmtree(folder)  # a killed worker's multiprocessing has left something there


def has(process: Path, mark: str) -> bool:
    try:
        return mark.encode() in (process / "environ").read_bytes()
    except OSError:  # it has ended, or belongs to somebody else
        return False


def command_of(process: Path) -> str:
    return (process / "cmdline").read_text().replace("\0", " ")


def test_every_saved_update_is_counted_once_and_rebuilt_unseen_though_a_worker_is_killed(demo: Demo) -> None:
    output, _ = (process := demo()).communicate(timeout=180)

    assert process.returncode == 0, output
    assert "with SIGKILL" in output
    assert "EQUAL" in output
    assert re.search(
        r"REBUILT under load: [\d,]{3,} points at four resolutions compared, 0 differences; version 2 is live;\s+"
        r"the dashboard all the while: [\d,]+ polls in [\d.]+ s, none empty, none falling",
        output,
    ), output
    # Whoever runs it in a pipe gets lines, not a screen.
    assert "\x1b" not in output
    assert "/metrics-log" in output


def test_a_log_row_that_a_superuser_removed_is_noticed(demo: Demo) -> None:
    output, _ = (process := demo("--tamper")).communicate(timeout=180)

    assert process.returncode == 3, output
    assert "DIFFERENT" in output


def test_too_few_updates_prove_nothing() -> None:
    equal = proof.Proof([proof.Saved("all", "all", "succeeded", 999, ())], [], points=12, differences=[])

    assert proof.verdict(equal, 999)[0]
    assert not proof.verdict(equal, 1_000)[0]


NOON, LATER = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
#: An answer in which every counter has a point.
FULL = {key: {NOON: 7.0} for key in COUNTERS}


def a_look(shown: Mapping[str, Mapping[datetime, float]], start: datetime = NOON) -> dict[str, Answer | None]:
    """One look that shows the same at every resolution."""
    series = {
        key: Series("counter", [Point(bucket, value) for bucket, value in buckets.items()])
        for key, buckets in shown.items()
    }
    return dict.fromkeys(RANGES_S, Answer(start, series))


def saw(*looks: Mapping[str, Answer | None]) -> Sightings:
    sightings = Sightings()
    for look in looks:
        sightings.note(look)
    return sightings


def test_counters_that_rise_and_buckets_that_leave_the_window_are_no_faults() -> None:
    rising = {key: {NOON: 8.0, LATER: 1.0} for key in COUNTERS}
    gone = {key: {LATER: 1.0} for key in COUNTERS}

    seen = saw(a_look(FULL), a_look(FULL), a_look(rising), a_look(gone, start=LATER))

    assert (seen.polls, seen.empty, seen.falling) == (4, [], [])


def test_a_bucket_that_falls_or_is_missing_is_told_at_each_resolution() -> None:
    lower, without = FULL | {"shop:orders": {NOON: 6.0}}, FULL | {"shop:orders": {LATER: 9.0}}

    assert saw(a_look(FULL), a_look(lower)).falling == [
        Fault(2, resolution, "shop:orders", NOON, 7, 6) for resolution in RANGES_S
    ]
    assert [fault.after for fault in saw(a_look(FULL), a_look(without)).falling] == [0] * len(RANGES_S)


def test_a_fall_below_what_was_seen_before_an_answer_failed_is_told() -> None:
    failed = dict.fromkeys(RANGES_S)

    seen = saw(a_look(FULL), failed, a_look({key: {NOON: 6.0} for key in COUNTERS}))

    assert {fault.poll for fault in seen.falling} == {3}


@pytest.mark.parametrize("look", [a_look({}), a_look({key: {} for key in COUNTERS}), dict.fromkeys(RANGES_S)])
def test_nothing_shown_is_told_as_empty(look: dict[str, Answer | None]) -> None:
    assert [fault[:4] for fault in saw(a_look(FULL), look).empty] == [
        (2, resolution, key, None) for resolution, key in product(RANGES_S, COUNTERS)
    ]


def test_a_histogram_must_not_lose_observations_and_a_gauge_may_do_what_it_likes() -> None:
    def look(gauge: float, count: float) -> dict[str, Answer | None]:
        baskets = Series("histogram", [Point(NOON, {"count": count, "sum": 1.0})])
        more = {"shop:stock": Series("gauge", [Point(NOON, gauge)]), "shop:basket": baskets}
        return {key: answer and Answer(answer.start, answer.series | more) for key, answer in a_look(FULL).items()}

    assert saw(look(9, 5), look(3, 5)).falling == []
    assert {fault.key for fault in saw(look(9, 5), look(9, 4)).falling} == {"shop:basket"}


def a_rebuild(*, points: int = 9, different: int = 0, left_out: int = 0, rose: float = 3) -> Rebuild:
    command = Rebuilt(
        version=2,
        replaced=1,
        swapped=True,
        position=5,
        points=points,
        different=different,
        differences=[],
        left_out=left_out,
        leaves_out="",
        left_out_before="",
        events=5,
        took_s=0.1,
    )
    return Rebuild(command, polls=30, seconds=6.0, empty=[], falling=[], rose=rose)


def test_a_rebuild_proves_only_what_was_compared_seen_and_is_live() -> None:
    fault = [Fault(1, "1min", "shop:orders", None, 0, 0)]
    wrong = [
        a_rebuild(points=0),
        a_rebuild(different=1),
        a_rebuild(left_out=1),
        a_rebuild(rose=0),
        a_rebuild()._replace(empty=fault),
        a_rebuild()._replace(falling=fault),
    ]

    assert rebuild_verdict(a_rebuild(), live=2)[0]
    assert not rebuild_verdict(a_rebuild(), live=1)[0]
    assert [rebuild_verdict(one, live=2)[0] for one in wrong] == [False] * len(wrong)


@pytest.mark.parametrize("moment", ["Starting", "Dashboard", "rebuild begins", "no more jobs"])
def test_ctrl_c_at_any_moment_ends_everything(demo: Demo, moment: str) -> None:
    process = demo()
    assert process.stdout is not None
    assert any(moment in line for line in process.stdout)

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 130, output


def test_a_port_in_use_is_told_before_anything_starts(demo: Demo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        output, _ = (process := demo(f"--port={port}")).communicate(timeout=20)

    assert process.returncode == 2
    assert f"port {port}" in output
