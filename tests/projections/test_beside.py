"""What runs beside a thread."""

from __future__ import annotations

from functools import partial

import pytest
from anyio.lowlevel import checkpoint

from chancy_metrics.projections.beside import run_beside


class Ended(BaseException):
    """What no `except Exception` catches, such as the end of a process that a test makes up."""


async def test_what_fails_of_two_things_at_once_is_raised_as_itself() -> None:
    async def fails(by: type[BaseException]) -> None:
        raise by

    for kind in (ConnectionError, Ended):
        with pytest.raises(kind):
            await run_beside(int, partial(fails, kind))
    with pytest.raises(ZeroDivisionError):
        await run_beside(lambda: 1 // 0, checkpoint)
    assert await run_beside(lambda: 7, checkpoint) == 7
