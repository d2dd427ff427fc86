"""The log taken elsewhere: exported to a file that is complete or not there, imported, and archived by the day."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.database import Connection, needs_schema
from chancy_metrics.events.errors import DamagedExport, MetricsLogError
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.file import check_whole
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.transfer.export_log import Export, Exported, Moved
from chancy_metrics.plugin.transfer.files import publish, temporary_file
from chancy_metrics.plugin.transfer.import_log import Abandoned, Import, Imported, abandon

#: Times to begin again before giving up.
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

    Nobody waits for it, and memory stays flat. Where retention takes a day meanwhile it begins again.

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
            export = Export(connection, tables, file, on_progress)
            return await (export.write_log() if day is None else export.write_day(day))

        if path is not None:
            return await _write_file(path, write)
        assert stream is not None
        try:
            return await write(stream)
        except Moved:
            raise MetricsLogError("a day left the log meanwhile: throw away what was written, and try again") from None


async def import_log(
    chancy: Chancy, path: Path, *, on_progress: Callable[[LedgerProgress], None] | None = None
) -> Imported:
    """Take an export into a database whose log is empty; stopped at any moment, the next call goes on there.

    Each batch is checked against the chain before it is kept. What others append meanwhile waits in pending for the
    end of the import, and is ordered behind it; so it does when an import is stopped, until another run ends it.

    Args:
        on_progress: Called after each chunk, from the event loop.

    Raises:
        DamagedExport: The file is no export, or not as it was written; nothing was taken from it.
        ImportRefused: The log is not empty, or a batch in the file is not what was written.
        OSError: The file can't be read.
    """
    await to_thread.run_sync(check_whole, path)
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection, own_connection(chancy) as beside:
        with needs_schema(tables):
            return await Import(connection, beside, tables, path, on_progress).run()


async def abandon_import(chancy: Chancy) -> Abandoned:
    """Take back all that an unfinished import has brought; the log is as empty as it was before.

    What others appended meanwhile stays, and gets its place with the next fold.

    Raises:
        MetricsLogError: No import is unfinished, or a lock could not be had: nothing has changed.
    """
    tables = tables_for(chancy.prefix)
    async with own_connection(chancy) as connection:
        with needs_schema(tables):
            return await abandon(connection, tables)


def archive_path(folder: Path, day: date) -> Path:
    """Where a day is archived; a folder is for one log."""
    return folder / f"metrics_log-{day}.export"


async def archive_day(connection: Connection, tables: Tables, day: date, folder: Path) -> str:
    """Write out a day that takes no batches any more; return why that was not possible, in words, or "".

    An archive that is there, complete and with the same content, will do.
    """
    path = archive_path(folder, day)

    async def write(file: BinaryIO) -> Exported:
        return await Export(connection, tables, file).write_day(day, archives=True)

    try:
        await _write_file(path, write, accepts_same=True)
    except (MetricsLogError, OSError) as error:
        return f"its archive {path} can't be written: {error}"
    return ""


async def _write_file(
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
        except Moved:
            continue
    raise MetricsLogError(f"days left the log {_TRIES} times while it was written: try again")


def _publish(file: BinaryIO, temporary: Path, path: Path, content: str) -> None:
    """Give the file its name, unless one with the same content has it."""
    if not publish(file, temporary, path) and not _holds(path, content):
        raise MetricsLogError(f"{path} is there already, with other content or damaged: move it away")


def _holds(path: Path, content: str) -> bool:
    try:
        return check_whole(path).content.hex() == content
    except DamagedExport:
        return False
