"""What we write goes into files of our own, whatever somebody put where they are to lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin.transfer import files
from chancy_metrics.plugin.transfer.cursor_file import CursorFile
from chancy_metrics.plugin.transfer.files import publish, read_small, replace_text, temporary_file
from chancy_metrics.plugin.transfer.parquet import ParquetFolder
from chancy_metrics.projections.search.query import EventCursor, EventQuery
from tests.plugin.transfer.test_parquet import a_page, an_event, positions

PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "a symbolic link": lambda victim, at: at.symlink_to(victim),
    "a dangling link": lambda victim, at: at.symlink_to(victim.with_name("new")),
    "a hard link": lambda victim, at: os.link(victim, at),
    "a pipe": lambda victim, at: os.mkfifo(at),
    "a leftover": lambda victim, at: at.write_text("half of it") and None,
}


@pytest.fixture(params=PLANTS)
def plant(request: pytest.FixtureRequest) -> Callable[[Path, Path], None]:
    return PLANTS[request.param]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def test_a_cursor_is_kept_beside_whatever_was_planted(
    plant: Callable[[Path, Path], None], victim: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    plant(victim, folder / ".cursor.new")
    plant(victim, folder / "cursor")

    CursorFile(folder / "cursor").write(EventCursor(7, 3))

    assert CursorFile(folder / "cursor").read() == EventCursor(7, 3)
    assert not (folder / "cursor").is_symlink()
    assert victim.read_text() == "precious"
    assert not victim.with_name("new").exists()
    assert sorted(os.listdir(folder)) == ["cursor"]


def test_parquet_files_are_written_beside_whatever_was_planted(
    plant: Callable[[Path, Path], None], victim: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    day = folder / f"day={datetime(2026, 3, 10, tzinfo=UTC):%Y-%m-%d}"
    day.mkdir(parents=True)
    name = f"part-{0:018}-end"
    for planted in (day / f".{name}.unfinished", day / f"{name}.parquet", folder / "._cursor.json.new"):
        plant(victim, planted)

    with ParquetFolder(folder, EventQuery()) as export:
        export.write(a_page(an_event(1), an_event(2)))
        export.finish()

    assert positions(folder) == [1, 2]
    assert victim.read_text() == "precious"
    assert not victim.with_name("new").exists()
    assert sorted(os.listdir(day)) == [f"{name}.parquet"]
    assert sorted(os.listdir(folder)) == ["_cursor.json", day.name]


def test_what_is_planted_between_removing_and_making_is_refused(
    victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = files._create

    def raced(path: Path) -> object:
        path.symlink_to(victim)
        return create(path)

    monkeypatch.setattr(files, "_create", raced)

    with pytest.raises(FileExistsError):
        replace_text(tmp_path / "cursor", "1\n")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("links", [True, False])
def test_what_has_the_name_is_never_written_over(
    links: bool, plant: Callable[[Path, Path], None], victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on a file system without hard links
        monkeypatch.setattr(files.os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    folder = tmp_path / "mine"
    folder.mkdir()
    taken = folder / "taken"
    plant(victim, taken) if links else taken.write_text("taken")
    kind = taken.lstat()

    with temporary_file(taken) as (file, temporary):
        file.write(b"export")
        assert not publish(file, temporary, taken)
    with temporary_file(folder / "free") as (file, temporary):
        file.write(b"export")
        assert publish(file, temporary, folder / "free")

    assert taken.lstat().st_ino == kind.st_ino
    assert victim.read_text() == "precious"
    assert sorted(os.listdir(folder)) == ["free", "taken"]
    assert (folder / "free").read_text() == "export"


def test_a_file_far_too_large_for_a_cursor_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with path.open("wb") as file:
        file.truncate(4 << 30)

    with pytest.raises(ValueError, match="more than"):
        read_small(path)
    with pytest.raises(MetricsLogError, match="can't be used: it holds more than"):
        CursorFile(path).read()


@given(st.binary(max_size=40))
def test_a_cursor_file_holds_a_cursor_or_says_that_it_holds_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "some-cursor"
    path.write_bytes(data)

    try:
        place = CursorFile(path).read()
    except MetricsLogError as error:
        assert "some-cursor" in str(error) and len(str(error)) < 1_000
    else:
        assert place is not None and place.position < 10**18
