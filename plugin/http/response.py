"""An answer that is given up where its client does not take it."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Seconds that a client may take for an answer, and one more for each so many bytes of it: 13 for the largest there is,
#: plotly's script as it lies there; so a stop is done in 15.
LEAST_S, BYTES_PER_S = 5.0, 600_000
_CHUNK_BYTES = 65_536


class BoundedResponse(Response):
    """Sent chunk by chunk within `LEAST_S` and what its size takes; then the connection is given up.

    It holds none of the page's room meanwhile. Uvicorn has no such limit: it would keep the answer in memory, and wait
    for the client when it stops, for as long as the client likes.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        transport = _transport(receive)
        if transport is not None:
            # Each chunk waits for the one before to be with the kernel, and so does the end.
            transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(LEAST_S + len(body) / BYTES_PER_S):
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
    """The connection behind a request of uvicorn's, which ASGI hides; None where the server is another one."""
    return getattr(getattr(receive, "__self__", None), "transport", None)
