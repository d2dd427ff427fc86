"""Threads of a command allocate from one arena."""

from __future__ import annotations

import subprocess
import sys

_COUNT = """
import ctypes, sys, threading
from chancy_metrics.plugin.host.one_arena import use_one_arena

if sys.argv[1] == "one":
    use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(4)

def allocate():
    together.wait()
    for _ in range(1_000):
        assert libc.malloc(1_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fdopen(1, b"w")
libc.malloc_info(0, ctypes.c_void_p(out))
libc.fflush(ctypes.c_void_p(out))
"""


def test_threads_share_an_arena() -> None:
    arenas = {}
    for how in ("many", "one"):
        done = subprocess.run([sys.executable, "-c", _COUNT, how], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        arenas[how] = done.stdout.count("<heap nr=")

    assert arenas["one"] == 1 < arenas["many"]
