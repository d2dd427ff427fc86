"""The rebuild under load: the real command, and a browser that looks at the dashboard all the while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from chancy_metrics.plugin import Rebuilt

from .browser import Browser
from .processes import Processes, ProcessFailed
from .sightings import Fault, Sightings, full

#: Seconds between looks.
EVERY_S = 0.2

_READY_S = 30
_COMMAND_S = 300
#: Looking goes on so long after the swap, and for so many more looks as long as the counter stands still.
_AFTER_S, _PATIENCE = 1.0, 70


class Rebuild(NamedTuple):
    """What it came to.

    Attributes:
        command: What the command said about itself.
        polls: How often the browser looked, in *seconds*.
        rose: How much the count of jobs that succeeded rose from the swap to the last look.
    """

    command: Rebuilt
    polls: int
    seconds: float
    empty: list[Fault]
    falling: list[Fault]
    rose: float

    @property
    def browsing(self) -> str:
        """What the browser saw, in a few words."""
        empty, falling = ({fault.poll for fault in faults} for faults in (self.empty, self.falling))
        return f"{self.polls:,} polls in {self.seconds:.1f} s, {_number(empty)} empty, {_number(falling)} falling"

    def __str__(self) -> str:
        differ = f"{self.command.different:,} of {self.command.points:,} points differ"
        return f"version {self.command.version}, {differ}; {self.browsing}"


def rebuild_verdict(rebuild: Rebuild, live: int) -> tuple[bool, str]:
    """Whether old and new were the same and who looked noticed nothing, and a sentence that says so.

    Args:
        live: The version that readers see at the end.
    """
    command = rebuild.command
    wrong = {
        "nothing was compared": not command.points,
        "old and new differ": command.different,
        "batches are missing from it": command.left_out,
        f"version {live} is live": live != command.version,
        "the dashboard had nothing to show": rebuild.empty,
        "the dashboard's counters fell": rebuild.falling,
        "the dashboard stood still after it": rebuild.rose <= 0,
    }
    if reasons := [reason for reason, is_so in wrong.items() if is_so]:
        return False, f"REBUILT BADLY: {', '.join(reasons)} ({rebuild})."
    compared = f"{command.points:,} points at four resolutions compared, 0 differences"
    return True, (
        f"REBUILT under load: {compared}; version {live} is live;\n"
        f"       the dashboard all the while: {rebuild.browsing}."
    )


def _number(polls: set[int]) -> str:
    return f"{len(polls):,}" if polls else "none"


async def rebuild(processes: Processes, browser: Browser) -> Rebuild:
    """Run `chancy-metrics rebuild` while jobs go on; look from before it begins until counters have risen after it.

    Raises:
        ProcessFailed: The command failed, or the dashboard had nothing to show before it began.
    """
    await asyncio.to_thread(browser.log_in)
    await _until_full(browser)
    began = time.monotonic()
    async with _looking(browser) as sightings:
        printed = await processes.run(
            *("rebuild", "chancy_metrics.plugin.cli", "--app", "examples.demo.app.chancy", "rebuild", "--json"),
            timeout_s=_COMMAND_S,
        )
        total = sightings.total
        await asyncio.sleep(_AFTER_S)
        for _ in range(_PATIENCE):
            if sightings.total > total:
                break
            await asyncio.sleep(EVERY_S)
    return Rebuild(
        msgspec.json.decode(printed.splitlines()[-1], type=Rebuilt),
        sightings.polls,
        time.monotonic() - began,
        sightings.empty,
        sightings.falling,
        sightings.total - total,
    )


async def _until_full(browser: Browser) -> None:
    deadline = time.monotonic() + _READY_S
    while not full(await asyncio.to_thread(browser.look)):
        if time.monotonic() > deadline:
            raise ProcessFailed(f"the dashboard showed no counters within {_READY_S} s")
        await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def _looking(browser: Browser) -> AsyncIterator[Sightings]:
    """Look for the length of a block, which begins after the first look."""
    sightings = Sightings()
    sightings.note(await asyncio.to_thread(browser.look))

    async def look() -> None:
        due = time.monotonic()
        while True:
            due += EVERY_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sightings.note(await asyncio.to_thread(browser.look))

    looking = asyncio.create_task(look())
    try:
        yield sightings
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    if not looking.cancelled():
        looking.result()
