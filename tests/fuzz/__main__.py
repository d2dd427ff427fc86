"""`python -m tests.fuzz --minutes 10`: hostile bytes for every stored format; what is not refused rightly is kept.

Runs with two gigabytes of address space more than it has at its start, one of which pyarrow's allocator reserves. Exits
with 1 if anything was found; the bytes are
then in tests/corpus, where the tests read them from now on.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import traceback
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.formats import CORPUS, FORMATS, fault, mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    asked = parser.parse_args()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)
    chance, tried, slowest = Random(asked.seed), Counter[str](), (0.0, "")
    ends = time.monotonic() + 60 * asked.minutes
    found: dict[str, str] = {}
    while time.monotonic() < ends and len(found) < 20:
        for name in FORMATS:
            data = mutant(chance, name)
            began = time.monotonic()
            error = fault(name, data)
            slowest = max(slowest, (time.monotonic() - began, name))
            tried[name] += 1
            if error is None:
                continue
            frames = traceback.extract_tb(error.__traceback__)
            spot = f"{name}: {type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
            if spot not in found:
                found[spot] = str(error)[:300]
                path = CORPUS / name / f"found-{sha256(data).hexdigest()[:12]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                print(f"{spot}: {found[spot]}\n  kept in {path}", flush=True)
    total = sum(tried.values())
    print(f"seed {asked.seed}: {total:,} inputs ({', '.join(f'{name} {n:,}' for name, n in tried.items())})")
    print(f"{len(found)} found; the slowest took {slowest[0]:.2f} s ({slowest[1]})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
