"""One seed of the storm at each interval: the others run as `python -m tests.faults.storm --seeds 20`."""

from __future__ import annotations

import pytest

from examples.embedded import Server
from tests.faults.storm import storm


@pytest.mark.parametrize("sync_interval", [2, 60])
async def test_a_storm_of_locks_kills_and_lost_commits_loses_nothing_in_silence(
    sync_interval: int, dsn: str, server: Server
) -> None:
    outcome = await storm(server, dsn, 1, sync_interval, rounds=3, longest_s=2.0)

    assert outcome.is_kept, outcome
    assert outcome.saved > 0
