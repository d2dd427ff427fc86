"""Damaged stored bytes are reported with their position, and what lies beside them is read."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio import to_thread

from chancy_metrics.events.chain import read_seals
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.kept_meta import MAX_DEPTH, decode_meta, encode_meta
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.audit.events import job_life
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.http.routes import page_routes
from chancy_metrics.plugin.recording.job_facts import job_facts
from chancy_metrics.projections.rollups.delta_ring import unpack_points
from tests.factories import LogWriter, a_job, a_row, a_run, an_app, fetch, now_us, sequence_and_fold, total
from tests.plugin.audit.test_audit_events import audit
from tests.reading import invoke

#: MessagePack that is no kept meta, and what is said of it.
BAD_META = {
    "bad UTF-8": (b"\x81\xa1a\xa1\xff", "UTF-8"),
    "a key of bad UTF-8": (b"\x81\xa1\xff\x01", "UTF-8"),
    "deep nesting": (b"\x81\xa1a" + b"\x91" * 100_000 + b"\x90", "recursion"),
    "nesting past the bound": (msgspec.msgpack.encode({"a": json.loads("[" * 65 + "]" * 65)}), "nested deeper than 64"),
    "an extension": (b"\x81\xa1a\xd4\x01\x00", "nothing that JSON can say"),
    "a key that is nothing": (b"\x81\xa1a\x81\xc0\x01", "neither text nor a whole number"),
    "a key that is a list": (b"\x81\xa1a\x81\x91\x01\x01", "neither text nor a whole number"),
    "no map": (b"\x01", "Expected `object`"),
    "half a map": (b"\x82\xa1a\x01", "truncated"),
    "a map of 4 G": (b"\xdf\xff\xff\xff\xff", "truncated"),
    "nothing": (b"", "truncated"),
}


@pytest.mark.parametrize(("data", "fault"), BAD_META.values(), ids=BAD_META)
def test_bytes_that_are_no_meta_are_one_error(data: bytes, fault: str) -> None:
    with pytest.raises(Damaged, match=fault) as raised:
        decode_meta(data)

    assert raised.value.kind == "kept meta"


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    "value",
    [
        *(1, "x", None, 1.5, True, 2**63, 2**70, "\ud800", [1, {"a": [None]}], {1: 2}, {None: 1}, {(1, 2): 3}, {1, 2}),
        *(object(), nested(MAX_DEPTH - 2), nested(MAX_DEPTH), nested(500), b"x", uuid.UUID(int=1)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_kept_can_be_read_and_shown_whatever_a_job_puts_there(value: Any) -> None:
    kept = decode_meta(encode_meta({"key": value, "other": 1}))

    assert kept.keys() == {"key", "other"}
    json.loads(msgspec.json.encode(kept))
    facts = job_facts([a_job(meta={"key": value})], ("key",))
    assert decode_meta(facts.meta[0]).keys() == {"key"}


async def log_with_bad_meta(connection: Connection, tables: Tables) -> tuple[uuid.UUID, int]:
    """Position 1: three updates, the second with kept meta of each kind of damage in a batch of its own behind it."""
    at = now_us() - 1_000_000
    good = msgspec.msgpack.encode({"customer": 4})
    job_id = uuid.uuid4()
    writer = LogWriter(connection, tables)
    rows = [a_row(at, meta=good), *(a_row(at, job_id=job_id.bytes, meta=bad) for bad, _ in BAD_META.values() if bad)]
    await writer.append(jobs=[*rows, a_row(at, meta=good)], runs=[a_run("app:n", at_us=at)])
    await writer.append(runs=[a_run("app:n", at_us=at)])
    await sequence_and_fold(connection, tables)
    return job_id, len(rows) + 1


async def test_an_event_whose_meta_is_damaged_is_listed_without_it_and_named(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    job_id, jobs = await log_with_bad_meta(connection, tables)

    table = audit(dsn, "events")
    lines = audit(dsn, "events", "--json")
    few = audit(dsn, "events", "--json", "--limit", "2")
    parquet = audit(dsn, "events", "--parquet", str(tmp_path / "log"))
    life = audit(dsn, "job", str(job_id), "--json")

    for done in (table, lines, parquet):
        assert done.returncode == 3
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == jobs - 2
        assert "the kept meta of event 1:1 could not be read: " in done.stderr
    events = [json.loads(line) for line in lines.stdout.splitlines()]
    assert len(events) == jobs + 2
    assert [event.get("meta") for event in events] == [
        {"customer": 4},
        *[None] * (jobs - 2),
        {"customer": 4},
        None,
        None,
    ]
    assert sum("damage" in event for event in events) == jobs - 2
    assert parquet.stdout.startswith(f"wrote {jobs + 2} events")
    assert few.stderr.count("\n") == 1 and len(few.stdout.splitlines()) == 2
    found = json.loads(life.stdout)
    assert len(found["updates"]) == len(found["unreadable"]) == jobs - 2


async def test_the_numbers_stand_and_the_check_names_the_damage(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    job_id, jobs = await log_with_bad_meta(connection, tables)
    at = datetime.now(UTC) - timedelta(seconds=1)
    async with an_app(dsn) as (chancy, _):
        found = await check(chancy)
        verified = await verify(chancy)
        explained = await explain(chancy, "app:n", at, resolution="1day")
        life = await job_life(chancy, job_id)
        answer = await _get(chancy, "/api/v1/metrics-log/events?limit=100")

    assert await total(connection, tables, "app:n") == [2] * 4
    assert await total(connection, tables, "queue:default:succeeded") == [jobs] * 4
    assert [(one.check, one.where) for one in found.findings] == [("payload", "position 1")]
    assert "kept meta of event 1" in found.findings[0].text
    assert verified.drift == 0
    assert explained.equal
    assert len(life.updates) == jobs - 2
    assert answer["events"][0]["meta"] == {"customer": 4}
    assert len(answer["gaps"]) == jobs - 2
    assert "kept meta of event 1:1" in answer["gaps"][0]


async def _get(chancy: Any, path: str) -> Any:
    from starlette.authentication import AuthCredentials
    from starlette.requests import Request

    name, _, query = path.partition("?")
    route = next(one for one in page_routes() if one["path"] == name)
    request = Request(
        {
            "type": "http",
            "method": "GET",
            "path": name,
            "query_string": query.encode(),
            "headers": [],
            "path_params": {},
            "auth": AuthCredentials(["authenticated"]),
        }
    )
    response = await route["endpoint"](request, chancy=chancy, worker=None)
    assert response.status_code == 200, response.body
    return json.loads(response.body)


def test_an_attempt_past_64_bits_is_damage() -> None:
    row = a_row()

    with pytest.raises((ValueError, OverflowError)):
        encode([row._replace(combo=row.combo._replace(attempt=2**63))])
    assert encode([row._replace(combo=row.combo._replace(attempt=2**63 - 1))]).events == 1


@pytest.mark.parametrize("points", [b"", b"\x00" * 8, b"\x81\xa41min\x93\xc4\x01x\xc4\x00\xc4\x00", b"\x91" * 100_000])
async def test_a_damaged_fold_in_the_cache_is_read_past_and_found(
    points: bytes, dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    async with an_app(dsn) as (chancy, metrics):
        await metrics.get_metrics(chancy)
        for _ in range(2):
            await writer.append(runs=[a_run("app:n", at_us=now_us())])
            await sequence_and_fold(connection, tables)
        await fetch(connection, "UPDATE {cache} SET points = %(points)s WHERE fold = 1", tables, points=points)
        await metrics.readers.refresh(chancy)

        shown = await metrics.get_metrics(chancy, "app:n")
        verified = await verify(chancy)

    assert shown["app:n"].values_1day[0][1] == 2
    assert ("cache", "fold 1") in [(one.check, one.where) for one in verified.findings]


@pytest.mark.parametrize(
    "sketch", [b"", b"\xc1", b"\x92\x01\x00", b"\xdd\xff\xff\xff\xff", b"\x92\x01\xcf" + b"\xff" * 8]
)
async def test_a_fold_passes_a_damaged_sketch_and_verify_finds_its_point(
    sketch: bytes, dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    run_us = now_us() - 5_000_000
    await writer.append(runs=[a_run("app:size", [1.0, 2.0], kind="histogram", unit="number", at_us=run_us)])
    await sequence_and_fold(connection, tables)
    await fetch(connection, "UPDATE {r1day} SET sketch = %(sketch)s", tables, sketch=sketch)
    async with an_app(dsn) as (chancy, _):
        explained = await explain(chancy, "app:size", datetime.now(UTC) - timedelta(seconds=5), resolution="1day")
    await writer.append(runs=[a_run("app:size", [3.0], kind="histogram", unit="number", at_us=run_us)])

    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "app:size") == [6] * 4
    assert not explained.equal
    async with an_app(dsn) as (chancy, _):
        verified = await verify(chancy)
    assert [(one.series.key, one.resolution) for one in verified.differences] == [("app:size", "1day")]


async def test_a_filter_that_nobody_made_hides_nothing(dsn: str, connection: Connection, tables: Tables) -> None:
    await LogWriter(connection, tables).append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)
    await fetch(
        connection,
        "INSERT INTO {summaries} VALUES (1, 1, '2026-03-10', 0, 4102444800000000, 1, 1, '')",
        tables,
    )

    done = audit(dsn, "events", "--key", "app:n", "--json")

    assert done.returncode == 0
    assert done.stderr.startswith("the summary of positions 1 to 1 is damaged: the batches were read without it")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        f"position={2**63} hash={'0' * 64} at=2026-01-01T00:00:00Z",
        f"position=0 hash={'0' * 64} at=2026-01-01T00:00:00Z",
        "position=7 hash=- at=2026-01-01T00:00:00Z",
        f"position=7 hash={'0' * 64} at=0001-01-01T00:00:00+14:00",
        f"position=7 hash={'0' * 64} at=yesterday",
        f"position=\u0667 hash={'0' * 64} at=2026-01-01T00:00:00Z",
        f"position=7 hash={'0' * 64} at={'2' * 100}",
    ],
)
def test_a_line_that_no_log_made_is_no_seal(line: str) -> None:
    with pytest.raises(Damaged, match="line 1 of seals") as raised:
        read_seals([f"chancy-metrics-seal 1 {line}"], "seals")

    assert raised.value.kind == "seal"


def test_no_bytes_make_points_that_no_fold_made() -> None:
    with pytest.raises(Damaged, match="fold 7 is no delta ring"):
        unpack_points(b"\x80\x80", "fold 7")


BAD_JSON = [
    "7",
    "[]",
    '{"dropped": -1}',
    '{"dropped": 1e300}',
    '{"dropped": "many"}',
    '{"a": ' + "[" * 2_000 + "]" * 2_000 + "}",
]


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: text[:20])
async def test_counts_that_nobody_counted_are_named_and_stop_nothing(
    text: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    writer = LogWriter(connection, tables)
    await writer.append(runs=[a_run("app:n", at_us=now_us())])
    await sequence_and_fold(connection, tables)
    await fetch(
        connection, "UPDATE {versions} SET counts = %(text)s::jsonb, verified = %(text)s::jsonb", tables, text=text
    )
    await fetch(
        connection,
        "INSERT INTO {sessions} (session, worker, producers, append_interval, held)"
        " VALUES (gen_random_uuid(), 'w9', '{{}}', 1, %(text)s::jsonb)",
        tables,
        text=text,
    )
    await writer.append(runs=[a_run("app:n", at_us=now_us())])

    await sequence_and_fold(connection, tables)

    assert await total(connection, tables, "app:n") == [2] * 4
    for command in (["status"], ["status", "--json"], ["completeness"], ["completeness", "--json"]):
        done = await to_thread.run_sync(invoke, dsn, command)
        assert "Traceback" not in done.stderr
        assert done.exit_code == (3 if command[0] == "status" else 0), done.stderr
        for where in ("what version 1 counted is no map of counts", "what w9 held is no map of counts"):
            assert where in done.stdout
        assert ("what verify kept of version 1 is no record of verify" in done.stdout) is (command[0] == "status")
    verified = await to_thread.run_sync(invoke, dsn, ["verify"])
    after = await to_thread.run_sync(invoke, dsn, ["status"])
    assert verified.exit_code == 3, verified.output
    assert "counted" in verified.stdout
    assert "what verify kept" not in after.stdout
