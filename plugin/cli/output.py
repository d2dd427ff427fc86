"""Print the answers of the commands, as text or JSON: no other module writes to stdout or stderr."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from io import TextIOBase
from typing import Any, BinaryIO, TextIO, TypeVar

import click
from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.cli.app import load
from chancy_metrics.plugin.cli.progress import Progress
from chancy_metrics.plugin.host.escape import encodable, json_line, safe
from chancy_metrics.plugin.host.redaction import without_password
from chancy_metrics.plugin.metrics import Metrics

#: Exit codes: done, failed, wrong usage, found a problem, interrupted.
FINE, COULD_NOT, WRONG_USAGE, FOUND_SOMETHING, INTERRUPTED = 0, 1, 2, 3, 128 + signal.SIGINT
#: Names the app where no `--app` does.
APP = "CHANCY_METRICS_APP"

T = TypeVar("T")


class Door:
    """The streams and the app of one run of a command, and whether it answers in JSON.

    Attributes:
        app: Import path of the app, as it was given.
        as_json: Whether answers and errors are JSON; then stdout has nothing else.
        chancy: The app, once it is loaded.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.app: str | None = None
        self.as_json = as_json
        self.chancy: Chancy | None = None
        self.out, self.err = map(_lenient, (sys.stdout, sys.stderr))
        self._is_data = False
        self._progress: Progress | None = None

    def load(self) -> tuple[Chancy, Metrics]:
        """Return the app and its plugin; ends the command if there is none."""
        if self.app is None:
            raise click.UsageError(
                f"say which app: give --app myapp.chancy before the command, or set {APP}=myapp.chancy"
            )
        self.chancy, metrics = load(self.app)
        return self.chancy, metrics

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a command's work."""
        try:
            return asyncio.run(work)
        finally:
            work.close()  # else Python warns on stderr where an interrupt came before it began

    def answer(self, value: Any, lines: Callable[[], Sequence[str]]) -> None:
        """Print *value* as one line of JSON, or what *lines* makes of it for people."""
        if self.as_json:
            self.say_json(value)
        else:
            self.say(*lines())

    def say(self, *lines: str) -> None:
        """Print lines on stdout, or on stderr once stdout takes data; control characters are escaped.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
            MetricsLogError: They can't be written.
        """
        if self._is_data:
            self.tell(*lines)
        elif lines:
            self._write("".join(f"{safe(line)}\n" for line in lines))

    def say_json(self, *values: Any) -> None:
        """Print each value as one line of JSON, where `say` prints."""
        stream = self.err if self._is_data else self.out
        self.say(*(json_line(value, stream.encoding or "ascii") for value in values))

    def say_lines(self, lines: bytes) -> None:
        """Print whole lines of JSON, UTF-8 and safe to show, where `say` prints."""
        stream = self.err if self._is_data else self.out
        text = encodable(lines.decode(), stream.encoding or "ascii")
        if self._is_data:
            self.tell_raw(text)
        elif text:
            self._write(text)

    def tell(self, *lines: str) -> None:
        """Print lines on stderr; if it can't be written, they are lost."""
        self.tell_raw("".join(f"{safe(line)}\n" for line in lines))

    def tell_raw(self, text: str) -> None:
        if self._progress is not None:
            text = self._progress.break_off() + text
        try:
            self.err.write(text)
            self.err.flush()
        except (OSError, ValueError):
            drop_unwritten(self.err)

    def progress(self) -> Progress:
        """Return a line that shows the progress of the command."""
        self._progress = Progress(self)
        return self._progress

    def data(self) -> BinaryIO:
        """Return stdout for bytes; from now on answers go to stderr."""
        self.out.flush()
        self._is_data = True
        return self.out.buffer

    def refuse(self, sentence: str, code: int) -> int:
        """Print why the command failed; return *code*."""
        self.tell(f"Error: {sentence}")
        if self.as_json:
            said = sentence.encode("utf-8", "backslashreplace").decode()
            try:
                self.say_json({"error": said, "exit_code": code})
            except (OSError, MetricsLogError):
                drop_unwritten(self.out)
        return code

    def _write(self, text: str) -> None:
        try:
            self.out.write(text)
            self.out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise MetricsLogError(f"the output can't be written: {error.strerror or error}") from error


class Aside(TextIOBase):
    """Stands for stdout and stderr while a command runs: all output goes to stderr, escaped and without passwords.

    It has the attributes that an app may use when it is imported: `faulthandler` needs a file number.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    @property
    def encoding(self) -> str:  # type: ignore[override] # read-only here, as that of TextIOWrapper
        return self._door.err.encoding

    @property
    def buffer(self) -> BinaryIO:
        return self._door.err.buffer

    def fileno(self) -> int:
        return self._door.err.fileno()

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: Any) -> None:
        """Change nothing: characters that the encoding lacks become "?" already."""

    def write(self, text: str, /) -> int:
        self._door.tell_raw("\n".join(map(safe, without_password(text).split("\n"))))
        return len(text)


def _lenient(stream: TextIO | None) -> TextIO:
    """Let *stream* print "?" for characters its encoding lacks; None, a closed stream, becomes the null device."""
    if stream is None:
        return open(os.devnull, "w")
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream


def drop_unwritten(stream: TextIO) -> None:
    """Drop what *stream* still buffers, which the interpreter would try to write at its exit, and complain."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # no file of the process
        pass
