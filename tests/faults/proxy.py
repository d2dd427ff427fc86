"""A man in the middle of client and PostgreSQL that loses a COMMIT, or only its answer, or everything."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from examples.embedded import Server

#: "commit" loses the COMMIT itself, which the server then rolls back; "answer" lets it happen, untold.
Loss = Literal["", "commit", "answer"]

_SOCKET = ".s.PGSQL.5432"
_READY = b"Z"


class Proxy:
    """Hands every byte on, until `loses` says what becomes of a COMMIT; then the connection is cut.

    Attributes:
        loses: Called at each COMMIT with the statements of its transaction.
        lost: What was lost, in order.
        silent: Whether all bytes of both directions are swallowed, of new connections too, and none is closed.
    """

    def __init__(self, server: Server, folder: Path, loses: Callable[[bytes], Loss]) -> None:
        self.loses = loses
        self.lost: list[Loss] = []
        self.silent = False
        self._server = server
        self._folder = folder
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def dsn(self, dsn: str) -> str:
        """The way to the same database through here."""
        return dsn.replace(quote(str(self._server.folder), safe=""), quote(str(self._folder), safe=""))

    async def open(self) -> None:
        self._listener = await asyncio.start_unix_server(self._connected, str(self._folder / _SOCKET))

    async def close(self) -> None:
        """Cut every connection, and take no more of them."""
        if self._listener is not None:
            self._listener.close()
        for task in set(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(client, to_client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(str(self._server.folder / _SOCKET))
        answered = asyncio.Event()
        hiding = asyncio.Event()

        async def requests() -> None:
            startup = await _startup(client)
            if not self.silent:
                to_server.write(startup)
            statements = b""
            while True:
                kind, body = await _message(client)
                if self.silent:
                    continue
                if kind in b"QP":
                    statements = b"" if body.startswith(b"BEGIN") else statements + body
                loss = self.loses(statements) if kind == b"Q" and body.startswith(b"COMMIT") else ""
                if loss:
                    self.lost.append(loss)
                if loss == "commit":
                    return
                if loss == "answer":
                    hiding.set()
                to_server.write(kind + (len(body) + 4).to_bytes(4) + body)
                if loss == "answer":
                    await answered.wait()
                    return

        async def answers() -> None:
            while data := await server.read(65_536):
                if self.silent:
                    continue
                if not hiding.is_set():
                    to_client.write(data)
                elif data[-6:-5] == _READY:
                    answered.set()

        tasks = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            to_server.close()
            to_client.close()


@asynccontextmanager
async def a_proxy(server: Server, loses: Callable[[bytes], Loss] = lambda _: "") -> AsyncIterator[Proxy]:
    """Run a proxy in front of *server* for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/tmp"))
    proxy = Proxy(server, folder, loses)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
        shutil.rmtree(folder)


async def _startup(client: asyncio.StreamReader) -> bytes:
    size = await client.readexactly(4)
    return size + await client.readexactly(int.from_bytes(size) - 4)


async def _message(client: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await client.readexactly(1)
    size = int.from_bytes(await client.readexactly(4))
    return kind, await client.readexactly(size - 4)
