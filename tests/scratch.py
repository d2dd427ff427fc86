"""Keep the data of the tests' servers in memory, where there is room.

A database is some 350 files, and hundreds of tests clone one; on a disk's file system that is half of a run's time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_PREFIX = "chancy-metrics-"
#: What a run needs at most, with some to spare.
_NEEDED_BYTES = 4 * 1024**3


def enter() -> Path | None:
    """Make a folder in memory the one for temporary files of this process and its children; None if there is no room.

    pytest's own folders (`tmp_path`) stay on disk: they outlive the run.
    """
    if not os.access(_MEMORY, os.W_OK):
        return None
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():  # of a run that was killed
            shutil.rmtree(folder, ignore_errors=True)
    if shutil.disk_usage(_MEMORY).free < _NEEDED_BYTES:
        return None
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    folder.chmod(0o755)  # run by root, a server runs as nobody
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder
