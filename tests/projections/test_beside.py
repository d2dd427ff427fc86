"""What runs beside a thread."""

from __future__ import annotations

import pytest

from chancy_metrics.projections.beside import nothing, run_beside


async def test_what_fails_of_two_things_at_once_is_raised_as_itself() -> None:
    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await run_beside(int, fails)
    with pytest.raises(ZeroDivisionError):
        await run_beside(lambda: 1 // 0, nothing)
    assert await run_beside(lambda: 7, nothing) == 7
