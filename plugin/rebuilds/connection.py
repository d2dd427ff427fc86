"""Connect for a rebuild, swap or undo, under the name by which `status` and `versions` show it."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

from chancy import Chancy

from chancy_metrics.events.database import Connection
from chancy_metrics.plugin.host.app import who
from chancy_metrics.plugin.host.bounded_connection import REBUILD_LOCK_LIMIT_MS, bounded_connection


def connect_bounded(chancy: Chancy, folded_by: str) -> AbstractAsyncContextManager[Connection]:
    """Open a connection that waits up to `REBUILD_LOCK_LIMIT_MS` for a lock; *folded_by* is its `application_name`."""
    return bounded_connection(chancy, folded_by, lock_limit_ms=REBUILD_LOCK_LIMIT_MS)


def run_name(what: str, by: str | None) -> str:
    """Return a unique name: *what*, and *by*, or user, host and process."""
    name = f"{what} {uuid4().hex[:8]} by {by or f'{who()} ({os.getpid()})'}"
    return name.encode("ascii", "replace").decode()  # PostgreSQL takes nothing else in an application_name
