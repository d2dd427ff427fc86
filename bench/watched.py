"""Run a worker that leads and folds every second, and report how long each round and its parts took."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from chancy import Worker
from chancy.plugins.leadership import ImmediateLeadership

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.sequencer import Sequenced, sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.folding import projector
from chancy_metrics.plugin.folding.projector import Projector, Round
from chancy_metrics.projections.versions import advance as steps
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.outcome import Advanced

from .database import an_app


class _Watched(Projector):
    async def run_once(self, **options: Any) -> Round:
        started = time.monotonic()
        done = await super().run_once(**options)
        _say("round", started, batches=done.batches, events=done.events)
        return done


async def _sequence(connection: Connection, tables: Tables, *, after: int, **options: Any) -> Sequenced:
    started = time.monotonic()
    done = await sequence(connection, tables, after=after, **options)
    _say("sequence", started, batches=done.batches, sweep=not after)
    return done


async def _advance(connection: Connection, tables: Tables, **options: Any) -> Advanced:
    started = time.monotonic()
    done = await advance(connection, tables, **options)
    if done.events:
        _say("fold", started, events=done.events)
    return done


def _say(what: str, started: float, **figures: Any) -> None:
    print(json.dumps({what: figures | {"at_s": started, "took_s": time.monotonic() - started}}), flush=True)


async def _lead(dsn: str) -> None:
    leadership = ImmediateLeadership()  # type: ignore[no-untyped-call] # Chancy's has no types
    async with an_app(dsn, leadership, Metrics(sync_interval=1)) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        watched = {(projector, "Projector"): _Watched, (projector, "sequence"): _sequence, (steps, "advance"): _advance}
        with ExitStack() as stack:
            for target, stand_in in watched.items():
                stack.enter_context(patch.object(*target, stand_in))
            async with worker:
                print(json.dumps({"ready": worker.worker_id}), flush=True)
                await asyncio.to_thread(sys.stdin.read)  # until the parent closes it, or ends


if __name__ == "__main__":
    asyncio.run(_lead(sys.argv[1]))
