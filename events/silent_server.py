"""Give up on a server that does not answer: shut its socket down, so that the caller can reconnect."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import AsyncConnection, Error, OperationalError


class ServerSilent(OperationalError):
    """The server has not answered in time; the outcome of the last statement is unknown."""


class Patience:
    """A time limit for answers of a server: doubled after each timeout, reset by an answer.

    Cancelling a statement does not help: psycopg then waits for the server to confirm. TCP gives up after a quarter of
    an hour on a pool's connections, and never behind a proxy that answers for the server.
    """

    def __init__(self, seconds: float) -> None:
        self._first_s = self._seconds = seconds

    @contextmanager
    def waiting(self, connection: AsyncConnection[Any]) -> Iterator[None]:
        """Shut *connection* down if the block takes longer than the limit.

        Raises:
            ServerSilent: The limit was reached.
        """
        cut: list[bool] = []
        timer = asyncio.get_running_loop().call_later(self._seconds, lambda: cut.append(_cut(connection)))
        try:
            yield
        except Error as error:
            if not cut:
                raise
            waited, self._seconds = self._seconds, 2 * self._seconds
            raise ServerSilent(f"the server did not answer for {waited:g} s, its connection is given up") from error
        else:
            self._seconds = self._first_s
        finally:
            timer.cancel()


def _cut(connection: AsyncConnection[Any]) -> bool:
    # Either error means that it is closed already.
    with suppress(Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
    return True
