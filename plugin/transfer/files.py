"""Write files durably: under a temporary name until they are complete, never through a link; lock folders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from chancy_metrics.events.errors import AlreadyRunning

#: Largest size of a small file, such as a cursor's.
SMALL_BYTES = 1 << 20


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new file beside *path* under a random name, which is removed after the block.

    A process that is killed leaves it behind as `.NAME.….part`.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with _naming(path):
            made = _create(temporary)
        with made as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def create_anew(path: Path) -> BinaryIO:
    """Open a new file at a known name, after removing what is there: the leftover of a killed run, or a link.

    Raises:
        OSError: Something appeared there in between; it is neither followed nor written to.
    """
    path.unlink(missing_ok=True)
    return _create(path)


def publish(file: BinaryIO, temporary: Path, path: Path) -> bool:
    """Make a file durable and give it the name *path*; return False, and change nothing, if that name is taken."""
    sync_file(file)
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    sync_folder(path.parent)
    return True


def replace(temporary: Path, path: Path) -> None:
    """Rename a durable file to *path*, replacing what is there; a link is replaced, not what it points to."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Replace a small file atomically: a reader finds the old text or the new one."""
    beside = path.with_name(f".{path.name}.new")
    with _naming(path):
        made = create_anew(beside)
    with made as file:
        file.write(text.encode())
        sync_file(file)
    replace(beside, path)


def read_small(path: Path) -> bytes:
    """Return the content of a small file.

    Raises:
        OSError: It can't be read.
        ValueError: It is larger than `SMALL_BYTES`.
    """
    with path.open("rb") as file:
        data = file.read(SMALL_BYTES + 1)
    if len(data) > SMALL_BYTES:
        raise ValueError(f"it holds more than {SMALL_BYTES:,} bytes")
    return data


def sync_file(file: BinaryIO) -> None:
    """Flush *file* to disk, so that it survives a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in *folder* to disk, so that they survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path) -> int:
    """Lock *folder* until the returned descriptor is closed, or its process ends.

    Raises:
        AlreadyRunning: Another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunning(f"another process writes into {str(folder)!r}: let it end first") from error
    return descriptor


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error name *path* instead of the temporary file, unless the temporary file exists already."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "wb")
