"""Find the archives of days in a folder, or below a URL by fsspec, and copy one of those here to read it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from chancy_metrics.events.errors import MetricsLogError

#: The names that `prune --archive` gives; what copying adds to one may follow.
_NAME = re.compile(r"metrics_log-(\d{4}-\d\d-\d\d)\b.*\.export", re.ASCII)


class ArchiveStore:
    """The archives in a place, which this looks through; it blocks.

    Attributes:
        place: The folder, absolute, or the URL.
        by_day: Day -> names of its archives, in order.
        ignored: A sentence for each `.export` file that is not named like the archive of a day.

    Raises:
        MetricsLogError: The place can't be read, fsspec is needed and missing, or no archive is there.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place) if _is_url(str(place)) else str(Path(place).absolute())
        self.by_day: dict[date, list[str]] = {}
        self.ignored: list[str] = []
        for name in sorted(self._names()):
            day = _day_of(name)
            if day is not None:
                self.by_day.setdefault(day, []).append(name)
            elif name.endswith(".export") and not name.startswith("."):
                self.ignored.append(f"{name} is not named like an archive of a day, metrics_log-2026-03-10.export")
        if not self.by_day:
            raise MetricsLogError(
                f"{self.place} has no archive of a day: `chancy-metrics prune --archive` writes them, named like "
                "metrics_log-2026-03-10.export"
            )

    def _names(self) -> list[str]:
        try:
            if not _is_url(self.place):
                return [path.name for path in Path(self.place).iterdir() if path.is_file()]
            files, root = _file_system(self.place)
            return [str(path).rstrip("/").rpartition("/")[2] for path in files.ls(root, detail=False)]
        except MetricsLogError:
            raise
        except Exception as error:
            raise _refused(self.place, error) from error


@contextmanager
def opened(place: str, name: str) -> Iterator[Path]:
    """Give the path of an archive in *place*: the file itself, or a copy that is removed after the block. It blocks.

    Raises:
        MetricsLogError: It can't be copied.
    """
    if not _is_url(place):
        yield Path(place, name)
        return
    files, root = _file_system(place)
    with tempfile.TemporaryDirectory(prefix="chancy-metrics-") as folder:
        path = Path(folder, "archive.export")
        try:
            files.get_file(f"{root}/{name}", str(path))
        except Exception as error:  # each file system has errors of its own
            raise _refused(f"{place.rstrip('/')}/{name}", error) from error
        yield path


def _is_url(place: str) -> bool:
    return "://" in place


def _refused(where: str, error: Exception) -> MetricsLogError:
    return MetricsLogError(f"the archive {where} can't be read: {error or type(error).__name__}")


def _day_of(name: str) -> date | None:
    found = _NAME.fullmatch(name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MetricsLogError(
            f"{url} is a URL, and reading archives from one needs fsspec: pip install 'chancy-metrics[archives]'"
        ) from error
    try:
        files, root = url_to_fs(url)
    except ImportError as error:
        raise MetricsLogError(f"{url} can't be read: {error}") from error
    except ValueError as error:
        raise MetricsLogError(
            f"{url} can't be read: {error}; fsspec knows s3://, gs://, memory:// and others"
        ) from error
    return files, str(root).rstrip("/")
