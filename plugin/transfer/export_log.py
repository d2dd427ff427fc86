"""Export the log, or one day of it, to a file that is complete or not there."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.errors import DamagedExport, MetricsLogError
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.transfer.file import check_whole
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.transfer.export_writer import Exported, ExportWriter, PrunedMeanwhile
from chancy_metrics.plugin.transfer.files import publish, temporary_file

#: How often an export is tried while retention removes days.
_TRIES = 5


async def export_log(
    chancy: Chancy,
    path: Path | None,
    *,
    day: date | None = None,
    stream: BinaryIO | None = None,
    on_progress: Callable[[LedgerProgress], None] | None = None,
) -> Exported:
    """Write the whole log, or one day of it, to a new file, which appears under its name when it is complete.

    It blocks no one, its memory does not grow, and it begins again if retention removes a day meanwhile.

    Args:
        path: A file that does not exist yet; None to write to *stream*.
        day: One UTC day of the log, instead of all of it.
        stream: Used where *path* is None; it is not closed, and an export into it can't begin again.
        on_progress: Called after each chunk, from the event loop.

    Raises:
        MetricsLogError: The file is there already, the log has no such day, or head and ledger do not agree.
        OSError: It can't be written.
    """
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection:

        async def write(file: BinaryIO) -> Exported:
            export = ExportWriter(connection, tables, file, on_progress)
            return await (export.write_log() if day is None else export.write_day(day))

        if path is not None:
            return await write_file(path, write)
        assert stream is not None
        try:
            return await write(stream)
        except PrunedMeanwhile:
            raise MetricsLogError("a day left the log meanwhile: throw away what was written, and try again") from None


async def write_file(
    path: Path, write: Callable[[BinaryIO], Awaitable[Exported]], *, accepts_same: bool = False
) -> Exported:
    if not accepts_same and await to_thread.run_sync(os.path.lexists, path):
        raise MetricsLogError(f"{path} is there already: choose another name, or remove it first")
    for _ in range(_TRIES):
        try:
            with temporary_file(path) as (file, temporary):
                exported = await write(file)
                await to_thread.run_sync(_publish, file, temporary, path, exported.content)
                return exported
        except PrunedMeanwhile:
            continue
    raise MetricsLogError(f"days left the log {_TRIES} times while it was written: try again")


def _publish(file: BinaryIO, temporary: Path, path: Path, content: str) -> None:
    """Give the file its name, unless a file with the same content has it."""
    if not publish(file, temporary, path) and not _holds(path, content):
        raise MetricsLogError(f"{path} is there already, with other content or damaged: move it away")


def _holds(path: Path, content: str) -> bool:
    try:
        return check_whole(path).content.hex() == content
    except DamagedExport:
        return False
