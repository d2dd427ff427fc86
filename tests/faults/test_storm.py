"""One seed of the storm at each interval: others, and those that lock the spill table, run by hand."""

from __future__ import annotations

import pytest

from examples.embedded import Server
from tests.faults.storm import said_lost, storm


@pytest.mark.parametrize("sync_interval", [2, 60])
async def test_no_lock_of_the_log_no_kill_and_no_lost_commit_loses_an_update(
    sync_interval: int, dsn: str, server: Server
) -> None:
    outcome = await storm(server, dsn, 1, sync_interval, rounds=3, longest_s=2.0)

    assert outcome.is_kept(locks_spill=False), outcome
    assert outcome.saved > 0 and outcome.losses > 0 and outcome.spills > 0, outcome


def test_log_lines_of_a_worker_add_up_to_what_is_lost() -> None:
    waits = (
        "neither the log nor the spill table took {} job updates of worker 'w': they wait in memory beside {}; if this"
    )
    waits += " process is killed before the database takes them, they are lost: LockNotAvailable: no"
    written = "1,000 job updates of worker 'w' that waited in memory are written"
    lost = "the last metrics of worker 'w' are lost: 4 observations, 20 job updates. They could not be written: no"
    lines = [waits.format("3", "nothing"), waits.format("1,002", "9 observations, 3 job updates"), written, lost]

    assert [said_lost("\n".join(lines[:number])) for number in range(5)] == [0, 3, 1005, 5, 20]
