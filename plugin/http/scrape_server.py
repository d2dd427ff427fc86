"""Serve scrapes by a small server of its own, for a sidecar or one pod, beside no worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from chancy import Chancy
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.http.scrape import Trouble, answer_scrape, scrape_problem

#: Where Prometheus looks by default, and the path on Chancy's API server.
PATHS = ("/metrics", "/metrics-log/prometheus")
#: Seconds a stop waits for answers on their way.
_STOP_S = 2
_BACKLOG = 128


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`, which ends with exit code 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        MetricsLogError: Somebody else does, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise MetricsLogError(
            f"{host}:{port} can't be listened on: {_why(error)}; give --listen another address or port"
        ) from None


def _why(error: OSError) -> str:
    """Return why, without the address that `socket.create_server` adds."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else "no host has this name"


async def serve(chancy: Chancy, listening: socket.socket, token: str | None, tell: Callable[[str], object]) -> None:
    """Answer scrapes until SIGTERM or SIGINT.

    Args:
        token: Which a scrape must bear; None for anybody.
        tell: Takes a sentence when scrapes begin to go wrong, and when they are right again.

    Raises:
        KeyboardInterrupt: SIGINT came.
    """
    trouble = Trouble(tell)

    async def answer(request: Request) -> Response:
        return await answer_scrape(request, chancy, token, trouble)

    server = _Server(
        uvicorn.Config(
            Starlette(routes=[Route(path, answer, methods=["GET"]) for path in PATHS]),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_S,
        )
    )
    came: list[int] = []

    def stop(number: int) -> None:
        server.force_exit = bool(came)  # the second does not wait
        came.append(number)
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    trouble.note(await scrape_problem(chancy))  # before anybody scrapes
    await server.serve([listening])
    if came and came[0] == signal.SIGINT:
        raise KeyboardInterrupt
