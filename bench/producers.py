"""A busy cluster on one PostgreSQL with one projector: `python -m bench.producers [--seconds N] [--json FILE]`.

A thousand producers append batches of 1 to 1,000 job updates. In the second phase a reader holds a snapshot, so that
nothing is vacuumed; in the surges more comes than the rate, in the second of them with a snapshot held, too. At the end
every update must be counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from chancy_metrics.events.database import Connection

from .database import SETTINGS, Databases, ask, connections, databases
from .harness import check
from .load import WORKER
from .phases import Phase, print_phases, summarise
from .plans import Plans, changed, plans
from .report import machine
from .sampling import Sample, Sampler

#: What is done, and for how much of the time.
PHASES = {
    "steady": 0.2,
    "snapshot held": 0.35,
    "released": 0.1,
    "surge": 0.05,
    "recovery": 0.1,
    "surge, snapshot held": 0.05,
    "released again": 0.15,
}
_SURGES = ("surge", "recovery", "surge, snapshot held", "released again")
_LATEST_S = 60
_DRAIN_S = 1_800
_APPENDED = "SELECT coalesce(sum(events), 0)::bigint FROM chancy_metrics_log WHERE starts_with(worker, %(worker)s)"
_COUNTED = """
SELECT sum(r.count)::bigint
FROM chancy_metrics_1day r
JOIN chancy_metrics_series s
    ON s.id = r.series
WHERE r.version = (SELECT live FROM chancy_metrics_head)
    AND starts_with(s.key, 'global:status:')
"""


class Options(NamedTuple):
    seconds: float
    producers: int
    connections: int
    rate: float
    surge: float | None


class Run(NamedTuple):
    """What was seen, by phase and second by second.

    Attributes:
        updates: How many were appended, and counted.
        drain_s: Seconds until all was folded, from the last append.
        plans: Of each phase, taken at its end; "begin" is the first seconds of the load.
    """

    phases: list[Phase]
    updates: int
    drain_s: float
    plans: dict[str, Plans]
    samples: list[Sample]


class _Child:
    """One of our processes, and what it said: an object a line, under the phase in which it came."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.phase = ""
        self._stdin, self._stdout = process.stdin, process.stdout

    async def first(self) -> Any:
        async with asyncio.timeout(_LATEST_S):
            return json.loads(await self._stdout.readline())["ready"]

    async def listen(self) -> None:
        while line := await self._stdout.readline():
            self.said.append((self.phase, json.loads(line)))

    async def tell(self, text: str) -> None:
        self._stdin.write(f"{text}\n".encode())
        await self._stdin.drain()

    async def end(self) -> None:
        """Close its stdin, at which it stops, and wait for that."""
        self._stdin.close()
        check(f"exit code of {self.process.pid}", await self.process.wait(), 0)


async def measure(pool: Databases, options: Options) -> Run:
    """Go through the phases, wait until all is folded, and count."""
    samples: list[Sample] = []
    found: dict[str, Plans] = {}
    with pool.database() as dsn:
        async with AsyncExitStack() as stack:
            (looking,) = await stack.enter_async_context(connections(dsn, 1, prepared=False))
            projector = await stack.enter_async_context(_child("bench.watched", dsn))
            load_dsn = f"{dsn}&application_name={WORKER}"
            load = await stack.enter_async_context(
                _child("bench.load", load_dsn, str(options.producers), str(options.connections))
            )
            folder = await projector.first()
            await load.first()
            processes = {projector.process.pid: "projector", load.process.pid: "generator"}
            backends = {folder: "projector's backend", WORKER: "generator's backends"}
            sampler = Sampler(looking, processes, backends)
            listening = [asyncio.create_task(child.listen()) for child in (projector, load)]
            for phase, share in PHASES.items():
                if phase in _SURGES and options.surge == 0:
                    continue
                rate = options.surge or 2 * _carried(projector) if phase.startswith("surge") else options.rate
                print(f"{phase}: {share * options.seconds:.0f} s at {rate:,.0f} updates/s", file=sys.stderr)
                await load.tell(str(rate))
                async with AsyncExitStack() as holding:
                    if "snapshot held" in phase:
                        await holding.enter_async_context(_snapshot(dsn))
                    if not found:
                        found["begin"] = await plans(dsn)
                    projector.phase = load.phase = phase
                    samples += await _sample(sampler, phase, share * options.seconds)
                    projector.phase = load.phase = ""
                    found[phase] = await plans(dsn)
            await load.end()
            ended = time.monotonic()
            while not samples or samples[-1].waiting_s or samples[-1].unfolded:
                samples += await _sample(sampler, "drain", 1)
                check("all folded in time", time.monotonic() - ended < _DRAIN_S, True)
            drain_s = time.monotonic() - ended
            await projector.end()
            await asyncio.gather(*listening)
            updates = await _check(looking, load)
    return Run(summarise(list(PHASES), samples, projector.said, load.said), updates, drain_s, found, samples)


async def _sample(sampler: Sampler, phase: str, seconds: float) -> list[Sample]:
    samples = []
    due = time.monotonic()
    until = due + seconds
    while due < until:
        samples.append(await sampler.look(phase))
        due += 1
        await asyncio.sleep(max(0, due - time.monotonic()))
    return samples


async def _check(connection: Connection, load: _Child) -> int:
    """Make sure that nothing is lost and nothing doubled; return how many updates there are."""
    appended = int(await ask(connection, _APPENDED, worker=WORKER))
    check("updates in the log", appended, sum(said["updates"] for _, said in load.said))
    check("updates in the rollups", await ask(connection, _COUNTED), appended)
    return appended


def _carried(projector: _Child) -> float:
    """Updates a second that it can carry, since folding takes half of the time at the most."""
    folds = [said["fold"] for _, said in projector.said if "fold" in said]
    return float(sum(one["events"] for one in folds) / max(1e-9, sum(one["took_s"] for one in folds)) / 2)


@asynccontextmanager
async def _snapshot(dsn: str) -> AsyncIterator[None]:
    """A reader that keeps one snapshot, and with it every row that was deleted since."""
    async with connections(dsn, 1) as (connection,):
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await ask(connection, "SELECT count(*) FROM chancy_metrics_head")
        yield


@asynccontextmanager
async def _child(module: str, *arguments: str) -> AsyncIterator[_Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    try:
        yield _Child(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.producers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1_200, help="of all phases together")
    parser.add_argument("--producers", type=int, default=1_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1_000, help="job updates a second")
    parser.add_argument("--surge", type=float, help="the same in the surge; 0 for none; default: twice what is carried")
    parser.add_argument("--json", type=Path, help="write figures, plans and all samples to this file")
    given = vars(parser.parse_args())
    file = given.pop("json")
    options = Options(**given)
    with databases() as pool:
        run = asyncio.run(measure(pool, options))
    print_phases(run.phases)
    for statement, several in changed(run.plans).items():
        print(f"plans of: {statement}", *(f"  {phase}: {plan}" for phase, plan in several.items()), sep="\n")
    print(f"{run.updates:,} updates appended and counted; all folded {run.drain_s:.0f} s after the last one")
    if file:
        about = machine() | {"postgresql": SETTINGS} | options._asdict()
        file.write_text(json.dumps(about | _plain(run), indent=1))


def _plain(value: Any) -> Any:
    """Tuples with names as objects, all the way down."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
