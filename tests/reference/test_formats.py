"""docs/formats.md has the elements of each format, and its decoders read what the plugin has written."""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from pathlib import Path

import msgspec
import pytest

from chancy_metrics.events import codec, kept_meta, row_bounds, schema
from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer import frames
from chancy_metrics.plugin.host import bounded_connection, options
from chancy_metrics.plugin.reading import window
from chancy_metrics.plugin.recording import buffer, job_error, job_facts, shutdown
from chancy_metrics.plugin.transfer.arrow_tables import SCHEMA
from chancy_metrics.projections.rules.job_times import MAX_DURATION_US
from chancy_metrics.projections.search.event import Event
from tests.commands import run
from tests.events.test_codec import GOLDEN, golden_batch
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold
from tests.reference.pages import code, page, rows, section

FRAMES = {one.__struct_config__.tag: one for one in typing.get_args(frames.Frame)}


def block(language: str, heading: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", section("formats", heading), re.S | re.M)[number]


def execute(program: str, path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def table(heading: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with *head*."""
    text = section("formats", heading)
    found = re.search(rf"^\| {re.escape(head)} \|.*\n(?:\|.*\n)+", text + "\n", re.M)
    assert found, f"no table begins with {head!r}"
    return rows(found[0])


@pytest.mark.parametrize(
    ("head", "struct"),
    [
        ("element of `jobs`", codec._Jobs),
        ("element of `observations`", codec._Observations),
        ("element", codec._Payload),
    ],
)
def test_the_elements_of_codec_1_are_those_that_are_written(head: str, struct: type[msgspec.Struct]) -> None:
    told = [code(row[0])[0] for row in table("Codec 1", head)]

    assert told == [field.name for field in msgspec.structs.fields(struct)]


def test_the_decoder_of_the_page_reads_the_bytes_of_codec_1() -> None:
    assert execute(block("python", "Codec 1"), GOLDEN) == block("text", "Codec 1")


def test_the_decoder_of_the_page_finds_every_value() -> None:
    names: dict[str, typing.Any] = {}
    exec(block("python", "Codec 1").partition("\nfor event in decode(")[0], names)

    events = names["decode"](GOLDEN.read_bytes())

    assert len(events) == golden_batch().events
    assert events[0] == {
        "job_id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "func": "app.send",
        "queue": "default",
        "state": "succeeded",
        "attempt": 1,
        "error": "",
        "meta": {"a": 1},
        "at_us": 1_773_144_000_000_000,
        "created_us": 1_773_143_999_999_991,
        "scheduled_us": 1_773_143_999_999_992,
        "started_us": 1_773_143_999_999_995,
        "completed_us": 1_773_144_000_000_000,
    }
    assert (events[1]["error"], events[1]["completed_us"], events[2]["started_us"]) == ("ValueError", None, None)


def test_the_frames_of_an_export_are_those_that_are_written() -> None:
    told = {code(row[0])[0]: code(row[1]) for row in table("Export file", "frame")}
    parts = {"points": frames.Point, "segments": frames.Segment}

    assert list(told) == list(FRAMES)
    for tag, struct in FRAMES.items():
        wanted = [field.name for field in msgspec.structs.fields(struct)]
        wanted += [field.name for field in msgspec.structs.fields(parts[tag])] if tag in parts else []
        wanted += ["key", "kind", "unit"] if tag == "segments" else []
        assert sorted(told[tag]) == sorted(wanted), tag


async def test_the_reader_of_the_page_checks_a_file_that_was_exported(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    writer = LogWriter(connection, tables)
    for _ in range(2):
        await writer.append(runs=[a_run()], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)
    path = tmp_path / "log.export"
    assert run(dsn, "audit", "export", str(path)).returncode == 0

    lines = execute(block("python", "Export file"), path).splitlines()
    path.write_bytes(path.read_bytes().replace(b"app:n", b"app:m"))
    with pytest.raises(subprocess.CalledProcessError):
        execute(block("python", "Export file"), path)

    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert all(line.endswith(" worker 2 events") for line in lines), lines


def test_the_keys_of_json_lines_are_the_fields_of_an_event() -> None:
    told = [code(row[0])[0] for row in table("JSON lines", "key")]

    assert told == [field.name for field in msgspec.structs.fields(Event)]


async def test_lines_of_json_have_the_keys_of_the_page(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run()], jobs=[a_row(now_us())])
    await sequence_and_fold(connection, tables)

    of_job, of_counter = (
        msgspec.json.decode(line) for line in run(dsn, "audit", "events", "--json").stdout.splitlines()
    )

    of = {code(row[0])[0]: row[2] for row in table("JSON lines", "key")}
    assert (of_job["kind"], of_counter["kind"]) == ("job", "counter")
    assert {of[key] for key in of_job} == {"all", "job updates"}
    assert {of[key] for key in of_counter} == {"all", "observations"}
    assert {key for key, whose in of.items() if whose == "observations"} <= of_counter.keys()


def test_the_columns_of_parquet_are_those_that_are_written() -> None:
    told = [(code(row[0])[0], row[1], row[2] != "never") for row in table("Parquet", "column")]

    assert told == [(field.name, str(field.type), field.nullable) for field in SCHEMA]


@pytest.mark.parametrize(
    ("of", "limit"),
    [
        ("Chancy's prefix", f"{schema._NAME_BYTES - schema._LONGEST_SUFFIX} bytes"),
        ("payload of a batch", f"{row_bounds.MAX_PAYLOAD_BYTES:,} bytes"),
        ("observations of a batch", f"{buffer.CHUNK_POINTS:,} of a buffer"),
        ("kept meta of a job", f"{options._MAX_META_BYTES:,} bytes"),
        ("kept meta of a batch", f"{job_facts._MAX_BATCH_META:,} bytes"),
        ("depth of kept meta", f"{kept_meta.MAX_DEPTH}"),
        ("text of an error", f"{job_error.MAX_ERROR_CHARS} characters"),
        ("sequence of a producer", f"{row_bounds.MAX_SEQUENCE:,}"),
        ("events of a batch", f"{row_bounds.MAX_EVENTS:,}"),
        ("days of the log", f"{row_bounds.FIRST_DAY} to {row_bounds.LAST_DAY}"),
        ("duration of a job", f"{MAX_DURATION_US:,} microseconds"),
        ("points read at once over HTTP", f"{window.MAX_BUCKETS:,} buckets"),
        ("wait of a command for a locked table", f"{bounded_connection.LOCK_LIMIT_MS // 1000} s"),
        ("wait of a command for a locked table", f"{bounded_connection.REBUILD_LOCK_LIMIT_MS // 1000} s in `rebuild`"),
        ("time at a worker's stop", f"{shutdown.STOP_S:.0f} s"),
    ],
)
def test_a_limit_is_that_of_the_code(of: str, limit: str) -> None:
    assert limit in {row[0]: row[1] for row in table("Limits", "of")}[of]


def test_no_heading_is_missing_from_the_list_at_the_top() -> None:
    listed = re.findall(r"\[([^\]]+)\]\(#", page("formats").partition("\n## ")[0])

    assert listed == re.findall(r"^## (.*)$", page("formats"), re.M)
