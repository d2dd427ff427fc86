"""The demo as a stranger runs it, only shorter."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from examples.demo import proof

ROOT = Path(__file__).parents[1]
Demo = Callable[..., "subprocess.Popen[str]"]
# One after the other: each is a cluster of its own.
pytestmark = pytest.mark.xdist_group("demo")


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


def test_every_saved_update_is_counted_once_though_a_worker_is_killed(demo: Demo) -> None:
    output, _ = (process := demo()).communicate(timeout=180)

    assert process.returncode == 0, output
    assert "with SIGKILL" in output
    assert "EQUAL" in output


def test_a_log_row_that_a_superuser_removed_is_noticed(demo: Demo) -> None:
    output, _ = (process := demo("--tamper")).communicate(timeout=180)

    assert process.returncode == 3, output
    assert "DIFFERENT" in output


def test_too_few_updates_prove_nothing() -> None:
    equal = proof.Proof([proof.Saved("all", "all", "succeeded", 999, ())], [], points=12, differences=[])

    assert proof.verdict(equal, 999)[0]
    assert not proof.verdict(equal, 1_000)[0]


@pytest.mark.parametrize("moment", ["Starting", "Dashboard", "with SIGKILL", "No more jobs"])
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
