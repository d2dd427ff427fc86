"""A server that says nothing any more: its connection is cut, so that whoever waits for it can try another one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg import AsyncConnection, Error, OperationalError


class ServerSilent(OperationalError):
    """The server has not answered in time; what became of the last statement is not known."""


class Patience:
    """How long a server may take: twice as long each time that was not enough, and as before after an answer.

    Cancelling a statement is no way out: psycopg then waits for the server to confirm. TCP would give up in the end,
    after a quarter of an hour on a pool's connections, and never behind a proxy that answers for the server.
    """

    def __init__(self, seconds: float) -> None:
        self._first_s = self._seconds = seconds

    @contextmanager
    def waiting(self, connection: AsyncConnection[Any]) -> Iterator[None]:
        """Cut *connection* if the block takes longer.

        Raises:
            ServerSilent: It did.
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
    # Either error says that it is closed already.
    with suppress(Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
    return True
