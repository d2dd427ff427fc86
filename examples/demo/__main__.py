"""`make demo`: real Chancy workers on a real PostgreSQL, the stock dashboard, and a proof at the end."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
from types import FrameType

import psycopg
from rich.console import Console

from examples.embedded import Server

from .browser import HOST
from .processes import Processes, ProcessFailed
from .story import Options, tell

COULD_NOT_RUN, INTERRUPTED = 1, 130


def main() -> int:
    """Run the demo: 0 if the proof holds, 1 if it could not run, 3 if something differs or there was too little."""
    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = 100
    options = _options()
    try:
        return asyncio.run(_run(options, console))
    except asyncio.CancelledError:
        console.print("Stopped; nothing is left behind.")
        return INTERRUPTED
    except (ProcessFailed, OSError, RuntimeError, psycopg.Error) as error:
        console.print(f"The demo could not run: {error}", style="red", markup=False, highlight=False)
        return COULD_NOT_RUN


async def _run(options: Options, console: Console) -> int:
    """Run it between a start and an end that nothing interrupts: a signal takes effect where `tell` awaits."""
    _cancel_on_signal()
    console.print("Starting PostgreSQL, two workers and the dashboard …")
    with Server(prefix="demo-") as server, Processes(server.folder) as processes:
        # The environment is how every process of the demo, this one too, finds its application.
        os.environ.update(DEMO_DSN=server.dsn(), DEMO_USER="demo", DEMO_PASSWORD=secrets.token_urlsafe(9))
        os.environ.setdefault("DEMO_TOKEN", secrets.token_hex(16))
        return await tell(options, processes, console)


def _cancel_on_signal() -> None:
    """Cancel this task at the first signal; a second Ctrl-C must not interrupt what the first one cleans up."""
    loop, task, requested = asyncio.get_running_loop(), asyncio.current_task(), False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        if task is not None and not task.done() and not requested:
            requested = True
            loop.call_soon_threadsafe(task.cancel)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not the loop's handlers: those are gone before the process is.
        signal.signal(number, request)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="how long jobs are pushed, 4 to 3,000 seconds")
    parser.add_argument("--port", type=int, default=8000, help="the dashboard's port")
    parser.add_argument("--stay", action="store_true", help="keep the dashboard after the verdict, until Ctrl-C")
    parser.add_argument("--minimum", type=int, default=1_000, help="job updates without which the proof says little")
    parser.add_argument("--tamper", action="store_true", help=argparse.SUPPRESS)  # for the demo's own test
    options = Options(**vars(parser.parse_args()))
    if not 4 <= options.seconds <= 3_000:
        parser.error(f"--seconds is {options.seconds}; 4 to 3,000 are possible (minutes are kept for an hour)")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, options.port))
        except (OSError, OverflowError) as error:
            parser.error(f"port {options.port} of {HOST} can't be used ({error}): choose another, as in PORT=8001")
    return options


if __name__ == "__main__":
    sys.exit(main())
