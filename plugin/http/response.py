"""A response that is given up if its client is too slow to receive it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Seconds a client may take to receive an answer, plus one for each BYTES_PER_S: 13 for the largest, plotly's script
#: uncompressed, so that the server stops within 15.
MIN_S, BYTES_PER_S = 5.0, 600_000
_CHUNK_BYTES = 65_536


class BoundedResponse(Response):
    """A response that is sent in chunks; past its time the connection is aborted.

    It holds no database connection meanwhile. Uvicorn has no such limit: it would keep the answer in memory, and its
    stop would wait for the client without end.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        transport = _transport(receive)
        if transport is not None:
            # Each chunk waits until the kernel has the one before, and so does the end.
            transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(MIN_S + len(body) / BYTES_PER_S):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                for first in range(0, len(body), _CHUNK_BYTES):
                    chunk = body[first : first + _CHUNK_BYTES]
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            if transport is not None:
                transport.abort()
                await asyncio.sleep(0)  # the server learns of it


def _transport(receive: Receive) -> Any:
    """Return the connection behind a request of uvicorn, which ASGI hides; None with another server."""
    return getattr(getattr(receive, "__self__", None), "transport", None)
