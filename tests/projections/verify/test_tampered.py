"""What somebody has changed in the aggregates and the books, and what each command says of it: never a traceback."""

from __future__ import annotations

from typing import NamedTuple

import anyio
import pytest
from psycopg import AsyncConnection

from chancy_metrics.events.schema import Tables
from tests.end_to_end.test_matrix import KEY, MINUTE, POINT, ROOT, THIRD, asking, damaged, history, said_by
from tests.factories import fetch

__all__ = ["damaged", "history"]

COMMANDS = {
    "status": ["status"],
    "completeness": ["completeness"],
    "explain": ["audit", "explain", KEY, "--at", MINUTE.isoformat()],
    "check": ["audit", "check"],
    "verify": ["verify"],
    "status after": ["status"],
    "events": ["audit", "events", "--key", KEY],
    "versions": ["versions"],
    "prune": ["prune", "--dry-run"],
    "fold": ["fold"],
    "rebuild": ["rebuild"],
}
OF_KEY = "version = 1 AND series = (SELECT id FROM {series} WHERE key = 'app:n')"
#: What is wrong with a row that no fold has written.
OUT_OF_BOUNDS = "no fold writes such a row"


class Tampering(NamedTuple):
    """Statements done by force to one database, and the words that a command must say."""

    changes: list[str]
    words: dict[str, list[str]]


def point(resolution: str, change: str, where: str = OF_KEY) -> str:
    last = f"(SELECT max(bucket) FROM {{r{resolution}}} WHERE {where})"
    return f"UPDATE {{r{resolution}}} SET {change} WHERE {where} AND bucket = {last}"


TAMPERINGS = {
    "numbers that are none": Tampering(
        [
            f"UPDATE {{r1min}} SET sum = 'NaN' WHERE {POINT}",
            point("5min", "count = -5"),
            point("1hour", "min = 5, max = 1"),
            point("1day", "sum = 'Infinity', last_us = 9223372036854775807"),
        ],
        {
            "explain": ["recomputed: DIFFERENT"],
            "verify": [f"{name} " for name in ("app:n 1min", "app:n 5min", "app:n 1hour", "app:n 1day")]
            + [OUT_OF_BOUNDS, "only in the new", "exit 3"],
            "status after": ["UNHEALTHY: verify found", "rollups"],
            "rebuild": ["version 2 is live", "exit 0"],
        },
    ),
    "buckets and names that are none": Tampering(
        [
            f"UPDATE {{r1min}} SET bucket = 9223372036854775807 WHERE {POINT}",
            point("5min", "bucket = bucket + 7"),
            point("1hour", "series = 987654"),
        ],
        {
            "explain": ["recomputed: DIFFERENT"],
            "verify": [
                "app:n 1min 9223372036854775807",
                "app:n 5min",
                "series 987654 1hour",
                OUT_OF_BOUNDS,
                "its series has no name",
                "exit 3",
            ],
            "rebuild": ["version 2 is live", "exit 0"],
        },
    ),
    # Alone, since what its cells lack are many findings, of which a hundred are shown.
    "a worker that has no name": Tampering(
        [
            "UPDATE {worker_segments} SET worker = 987654 WHERE version = 1 AND part = 0 AND worker ="
            " (SELECT min(worker) FROM {worker_segments} WHERE version = 1)",
        ],
        {
            "verify": ["worker number 987654", "its worker has no name", "exit 3"],
            "rebuild": ["version 2 is live", "exit 0"],
        },
    ),
    "books that contradict themselves": Tampering(
        [
            "UPDATE {log} SET appended_at = 'infinity' WHERE " + THIRD,
            "UPDATE {log} SET first_us = NULL, last_us = NULL"
            " WHERE (producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 4)",
            "UPDATE {producers} SET seen_at = '-infinity', holes = -3 WHERE worker = 'w1'",
            "DELETE FROM {producers} WHERE worker = 'w2'",
            "INSERT INTO {dead_letters} (version, position, error, found_at) VALUES (1, 999, 'x', 'infinity')",
            "INSERT INTO {versions} (version, rules, user_rules, rule_names, status, position, created_by, created_at)"
            " SELECT 2, rules, user_rules, rule_names, 'live', 999, 'x', 'infinity' FROM {versions} WHERE version = 1",
            "UPDATE {summaries} SET filter = decode(repeat('00', octet_length(filter)), 'hex')",
            "INSERT INTO {days} VALUES ('infinity', 'attached', now(), NULL, NULL),"
            " ('12000-01-01', 'gone', 'infinity', 9223372036854775807, 9223372036854775807)",
        ],
        {
            "check": [
                "WRONG at position 3 (chain)",
                "chain, position 4",
                "payload, position 4: its events are from ",
                "its row says it was seen at -infinity, with -3 holes",
                "its row is missing: nobody would see a hole",
                "version 1 leaves it out, and the ledger ends at 4",
                "its status is live, and the live one is version 1",
                "it is at position 999",
                "one of its times is infinite",
                "summaries, positions 1 to 4",
                "day infinity",
                "day 12000-01-01",
                "exit 3",
            ],
            "status": ["UNHEALTHY: 1 producer with a negative number of holes, which is damage", "holes           0"],
            "completeness": ["holes           0", "1 producer with a negative number of holes"],
            "status after": ["UNHEALTHY: the last audit check, at ", "chain, position 3: ", "positions 1 to 4, "],
            "events": ["the summary of positions 1 to 4 is damaged: the batches were read without it", "4:1", "exit 0"],
            "verify": ["chain, position 3", "head, version 2: it is at position 999", "exit 3"],
        },
    ),
    "a version and a cache past the ledger": Tampering(
        [
            "UPDATE {versions} SET position = 9223372036854775807, folds = 9223372036854775807 WHERE version = 1",
            "UPDATE {cache} SET position = 99999",
        ],
        {
            "check": ["the live version is past it"],
            "verify": ["the live version is past it", "cache, fold", "exit 3"],
        },
    ),
    "counts that the log does not bear out": Tampering(
        [
            'UPDATE {versions} SET counts = \'{{"skewed": 7, "expired": 999999, "rejected:value": 2}}\''
            " WHERE version = 1"
        ],
        {
            "verify": [
                "counts, version 1: it counted 7 as 'skewed', and the log says 0",
                "it counted 2 as 'rejected:value', and the log says 0",
                "it counted 999,999 as 'expired', and the log has ",
                "exit 3",
            ],
            "status after": ["UNHEALTHY: verify found", "counts, version 1"],
            "rebuild": ["version 2 is live", "exit 0"],
        },
    ),
    "counts that are none": Tampering(
        ["UPDATE {versions} SET counts = '[1]' WHERE version = 1"],
        {"verify": ["counts, version 1: ", "a rebuild counts again", "exit 3"], "rebuild": ["version 2 is live"]},
    ),
    "entries that are no batch": Tampering(
        [
            "INSERT INTO {set_aside} (day, producer, sequence, why)"
            " SELECT 'infinity', gen_random_uuid(), 7, 'its day is none' FROM generate_series(1, 3)",
        ],
        {
            "status": ["set aside       3 entries", "UNHEALTHY: 3 entries that waited for a position were set aside"],
            "completeness": ["set aside       3 entries"],
            "check": ["it has no position: its day is none", "exit 3"],
        },
    ),
    "no version 0": Tampering(
        ["DELETE FROM {versions} WHERE version = 0"],
        {
            "check": ["WRONG at version 0 (head): it is missing", "exit 3"],
            "verify": ["version 0: it is missing", "exit 3"],
            "rebuild": ["version 0, which holds the points of pruned days, is missing", "exit 1"],
        },
    ),
    "a head without a version": Tampering(
        ["DELETE FROM {head}"],
        {
            name: ["run `chancy misc migrate`", "exit 1"]
            for name in ("status", "completeness", "explain", "check", "verify", "fold", "rebuild")
        },
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_what_was_changed_is_named_and_ends_no_command_in_a_traceback(
    name: str, damaged: str, tables: Tables
) -> None:
    tampering = TAMPERINGS[name]
    async with await AsyncConnection.connect(damaged, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")
        for change in tampering.changes:
            await fetch(connection, change, tables)

    said = {name: await anyio.to_thread.run_sync(said_by, damaged, command) for name, command in COMMANDS.items()}
    async with asking(damaged) as client:
        answers = [
            await client.get(path)
            for path in (
                *(f"{ROOT}/status", f"{ROOT}/events?after=-1", "/api/v1/metrics"),
                *(f"/api/v1/metrics/app:n?resolution={resolution}" for resolution in ("1min", "5min", "1hour", "1day")),
            )
        ]

    missing = {
        name: ([word for word in words if word not in said[name]], said[name])
        for name, words in tampering.words.items()
        if any(word not in said[name] for word in words)
    }
    assert missing == {}
    assert {name: text for name, text in said.items() if "unexpected" in text or "Traceback" in text} == {}
    assert {str(answer.url): answer.text for answer in answers if answer.status_code not in (200, 503)} == {}
