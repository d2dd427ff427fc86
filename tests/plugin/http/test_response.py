"""Slow clients of a real server: they delay no one else, and are disconnected after a while."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from chancy import Chancy, Worker
from chancy.plugins.api import Api, SimpleAuthBackend
from itsdangerous import URLSafeTimedSerializer

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.http import limits, response, routes
from tests.factories import eventually

TOKEN = URLSafeTimedSerializer("secret", salt="chancy.api.token").dumps({"u": "ann"})
SIGNED = f"Host: here\r\nAuthorization: Bearer {TOKEN}\r\n"


@asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A server as Chancy runs it, and its port; it must stop in time, whoever is connected."""
    api = Api(authentication_backend=SimpleAuthBackend({}), secret_key="secret")
    async with Chancy(dsn, plugins=[Metrics(), api]) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        server = uvicorn.Server(uvicorn.Config(api.build_starlette_app(worker, chancy), log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            running = asyncio.create_task(server.serve([listening]))
            try:
                yield server, listening.getsockname()[1]
            finally:
                server.should_exit = True
                await asyncio.wait_for(running, 10)


async def asking(port: int, text: str) -> socket.socket:
    """Send this much of a request, and then nothing more; read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    await asyncio.get_running_loop().sock_sendall(client, text.encode())
    return client


async def test_slow_clients_take_no_room_and_end_no_later_than_their_limit(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "MIN_S", 0.2)
    monkeypatch.setattr(response, "BYTES_PER_S", 1e9)
    path = "/api/v1/metrics-log/status"
    slow = [
        f"GET {path} HTTP/1.1\r\n{SIGNED}X-Slow: ",
        f"GET {path} HTTP/1.1\r\n{SIGNED}Content-Length: 1000\r\n\r\n1",
        f"GET {path} HTTP/1.1\r\n{SIGNED}\r\n",
        "GET /metrics-log/plotly.min.js HTTP/1.1\r\nHost: here\r\n\r\n",
    ]
    async with serving(dsn) as (server, port):
        clients = [await asking(port, text) for text in slow for _ in range(limits.MAX_CONNECTIONS + 1)]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as quick:
                answer = await quick.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 200
            mine = {client.getsockname() for client in clients[-limits.MAX_CONNECTIONS - 1 :]}

            async def are_given_up() -> bool:
                return not mine & {connection.client for connection in server.server_state.connections}

            await eventually(are_given_up)
            server.should_exit = True  # and with the others still there

            async def has_stopped() -> bool:
                return not server.server_state.connections

            await eventually(has_stopped)
        finally:
            for client in clients:
                client.close()


async def test_an_answer_that_takes_too_long_is_refused_and_leaves_its_room(
    dsn: str, connection: Connection, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with serving(dsn) as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {tables.series.as_string(connection)} IN ACCESS EXCLUSIVE MODE")
            with monkeypatch.context() as patched:
                patched.setattr(routes, "ANSWER_S", 0.1)
                asked = (client.get("api/v1/metrics-log/marks", headers=headers) for _ in range(20))
                answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {503}
        assert "at most" in answers[0].json()["title"]

        assert (await client.get("api/v1/metrics-log/marks", headers=headers)).status_code == 200
