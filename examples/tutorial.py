"""Follow docs/tutorial.md as a reader does: write its files, run its commands, and put what they print into the page.

`python -m examples.tutorial [--install]`; with --install in a virtual environment of its own, made as the page says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from examples.embedded import Server

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
LATEST_S = 600

#: A block with the line before it, which names its file or says who runs it.
_BLOCK = re.compile(r"^(?P<before>[^\n]*)\n\n?```(?P<kind>console|python|diff)\n(?P<body>.*?)^```$", re.M | re.S)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_END = "--- end of command"
#: Commands that show numbers: a reader takes longer to type one than a fold takes.
_SHOWS_NUMBERS = re.compile(r"chancy-metrics (report|audit|verify)")


class Failed(Exception):
    """A command of the page did not do what the page says."""


class Shell:
    """One bash, as in a terminal that stays open."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._errors = folder.parent / "errors"
        self._last_id = ""
        with self._errors.open("w") as errors:
            self._bash = subprocess.Popen(
                ["bash"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def type(self, command: str) -> str:
        """Run a command line, and return it with what it prints; an id of a job becomes the last one that was printed.

        Raises:
            Failed: It ended with an exit code other than 0, and 3, which means that it found something.
        """
        if _SHOWS_NUMBERS.match(command):
            while json.loads(self._run("chancy-metrics status --json"))["oldest_waiting_s"]:
                time.sleep(0.5)
        command = _ID.sub(self._last_id, command)
        printed = self._run(command)
        self._last_id = (_ID.findall(printed) or [self._last_id])[-1]
        return f"$ {command}\n{printed}"

    def _run(self, command: str) -> str:
        _pipe(self._bash.stdin).write(f"{command}\nprintf '\\n%s %s\\n' '{_END}' $?\n")
        _pipe(self._bash.stdin).flush()
        lines = []
        for line in _pipe(self._bash.stdout):
            if not line.startswith(_END):
                lines.append(line)
                continue
            printed = "".join(lines).removesuffix("\n")
            if line.split()[-1] not in ("0", "3"):
                raise Failed(f"{command!r} ended with {line.split()[-1]}:\n{printed}{self._errors.read_text()[-2000:]}")
            return printed
        raise Failed(f"the shell ended during {command!r}")

    def close(self) -> None:
        """End it and what it has started."""
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def _shell(dsn: str, *, install: bool) -> Iterator[tuple[Shell, Path]]:
    """Open a shell in an empty folder beside the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHANCY", "PYTHON"))}
    environment |= {"DATABASE_URL": dsn, "COLUMNS": "120"}
    if not install:
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with tempfile.TemporaryDirectory(prefix="tutorial-") as parent:
        folder = Path(parent, "shop")
        folder.mkdir()
        Path(parent, "chancy-metrics").symlink_to(ROOT)
        shell = Shell(folder, environment)
        alarm = threading.Timer(LATEST_S, shell.close)
        alarm.start()
        try:
            yield shell, folder
        finally:
            alarm.cancel()
            shell.close()


def follow(page: str, dsn: str, *, install: bool = False) -> str:
    """Do what *page* says on a database, and return the page with what its commands print now."""
    with _shell(dsn, install=install) as (shell, folder):

        def do(block: re.Match[str]) -> str:
            body = block["body"]
            if block["kind"] == "console":
                by_hand = block["before"] == "<!-- by hand -->" or (
                    block["before"] == "<!-- install -->" and not install
                )
                return block[0] if by_hand else block[0].replace(body, _type(shell, body))
            name = next(re.finditer(r"`(\w+\.py)`", block["before"]))[1]
            file = folder / name
            file.write_text(body if block["kind"] == "python" else _changed(file.read_text(), body))
            return block[0]

        return _BLOCK.sub(do, page)


def _type(shell: Shell, block: str) -> str:
    return "".join(shell.type(command) for command in re.findall(r"^\$ (.*)", block, re.M))


def _changed(text: str, diff: str) -> str:
    """Apply the hunks of a diff, which are divided by lines that begin with @@."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        if text.count(before) != 1:
            raise Failed(f"these lines are to change, and there {text.count(before)} times:\n{before}")
        text = text.replace(before, after)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="also make the virtual environment that the page makes")
    given = parser.parse_args()
    with Server(prefix="tutorial-") as server:
        PAGE.write_text(follow(PAGE.read_text(), server.dsn(), install=given.install))
