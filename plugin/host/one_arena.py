"""Keep the memory of all threads in one arena of malloc: each of glibc's arenas keeps what its threads have freed."""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8


def use_one_arena() -> None:
    """Do so from now on, where the C library is glibc; for commands and tasks, whose process is ours alone.

    Folds and comparisons run in whichever thread is free, and each arena would grow to the largest of them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
