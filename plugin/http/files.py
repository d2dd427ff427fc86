"""Send the files of the page: those in the folder page/, and plotly's script out of its own package.

Starlette's StaticFiles has no ETag per encoding, compresses nothing, and would wait for slow clients without a limit.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from chancy_metrics.plugin.http.response import BoundedResponse

PAGE = Path(__file__).parent / "page"
SHELL = "index.html"
PLOTLY = "plotly.min.js"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Inline styles are allowed, since plotly makes its own; inline scripts and eval are not.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
#: Browsers ask for small files each time, mostly answered with 304, and for plotly's script once a day.
_CACHED = {PLOTLY: "public, max-age=86400"}
_MIN_BYTES = 1_000
_WEIGHT = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)", re.ASCII)
_TAG = re.compile(r'(?:W/)?"([^"]*)"')
NO_PLOTLY = (
    "charts need plotly, which is not installed: run pip install 'chancy-metrics[page]' and restart the API server"
)


class File(NamedTuple):
    """A file as it is sent; *tag* is that of the plain body, the compressed one has its own."""

    body: bytes
    zipped: bytes
    tag: str
    media_type: str


async def send_file(request: Request, name: str) -> Response:
    """Send one of the page's files, compressed if the browser takes that; 304 if it has it, 404 if there is none."""
    path = plotly_script() if name == PLOTLY else files().get(name)
    if path is None:
        missing = NO_PLOTLY if name == PLOTLY else "Not Found"
        return Response(missing, 404, _HEADERS | {"Cache-Control": "no-store"}, "text/plain; charset=utf-8")
    file = await anyio.to_thread.run_sync(read_file, path, path.stat().st_mtime_ns)
    zipped = len(file.body) >= _MIN_BYTES and takes_gzip(_field(request, "accept-encoding"))
    tag = f"{file.tag}-gzip" if zipped else file.tag
    headers = _HEADERS | {
        "ETag": f'"{tag}"',
        "Cache-Control": _CACHED.get(name, "no-cache"),
        "Vary": "Accept-Encoding",
    }
    if is_known(tag, _field(request, "if-none-match")):
        return Response(status_code=304, headers=headers)
    if zipped:
        return BoundedResponse(file.zipped, headers=headers | {"Content-Encoding": "gzip"}, media_type=file.media_type)
    return BoundedResponse(file.body, headers=headers, media_type=file.media_type)


def takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` prefers gzip to no encoding, by RFC 9110, 12.5.3; a malformed weight counts as 0.

    An encoding that is not named has the weight of `*`, or 0.
    """
    weights: dict[str, float] = {}
    for one in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in one.split(";"))
        weights[{"x-gzip": "gzip"}.get(coding, coding)] = _weight(parameters)
    gzip_weight = weights.get("gzip", weights.get("*", 0.0))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
    return 1.0


def is_known(tag: str, known: str) -> bool:
    """Whether an `If-None-Match` is `*` or names the tag, weakly or strongly."""
    return known.strip() == "*" or any(match[1] == tag for match in _TAG.finditer(known))


def _field(request: Request, name: str) -> str:
    """Return a header's value; several lines of it are joined to one list."""
    return ", ".join(request.headers.getlist(name))


@lru_cache
def files() -> dict[str, Path]:
    """Return the page's own files by name: nothing else is sent."""
    return {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}


@lru_cache
def read_file(path: Path, modified_ns: int) -> File:
    """Read a file and compress it, once until it is modified; plotly's script takes a few tenths of a second."""
    body = path.read_bytes()
    return File(body, gzip.compress(body, 6), sha256(body).hexdigest()[:32], _TYPES[path.suffix])


def plotly_script() -> Path | None:
    """Return the path of plotly's script; None if plotly is not installed. Its Python code is not imported."""
    spec = importlib.util.find_spec("plotly")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / "package_data" / PLOTLY).is_file():
            return path
    return None
