"""Archive one day of the log in a folder, before retention removes the day."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import BinaryIO

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.transfer.export_log import write_file
from chancy_metrics.plugin.transfer.export_writer import Exported, ExportWriter


def archive_path(folder: Path, day: date) -> Path:
    """Return the path of a day's archive; a folder is for one log."""
    return folder / f"metrics_log-{day}.export"


async def archive_day(connection: Connection, tables: Tables, day: date, folder: Path) -> str | None:
    """Export a closed day into *folder*, unless an equal archive is there; return a sentence if that failed."""
    path = archive_path(folder, day)

    async def write(file: BinaryIO) -> Exported:
        return await ExportWriter(connection, tables, file).write_day(day, archives=True)

    try:
        await write_file(path, write, accepts_same=True)
    except (MetricsLogError, OSError) as error:
        return f"its archive {path} can't be written: {error}"
    return None
