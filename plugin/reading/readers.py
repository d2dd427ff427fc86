"""Find the `Reader` that keeps an app's replica in this process; make it when it is first asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chancy import Chancy

from chancy_metrics.plugin.host.app import plugin_of

if TYPE_CHECKING:  # numpy comes with it: a worker that only records starts without
    from chancy_metrics.plugin.reading.follower import Reader


class Readers:
    """The readers of one plugin, by app.

    Args:
        poll_interval: Returns the seconds between checks of the delta ring where no fold is announced.
    """

    def __init__(self, poll_interval: Callable[[], float]) -> None:
        self._poll_interval = poll_interval
        self._by_app: weakref.WeakKeyDictionary[Chancy, Reader] = weakref.WeakKeyDictionary()

    def of(self, chancy: Chancy) -> Reader:
        """Return the app's reader; a new one where its event loop has ended."""
        from chancy_metrics.plugin.reading.follower import Reader

        reader = self._by_app.get(chancy)
        if reader is None or reader.loop_ended:
            reader = self._by_app[chancy] = Reader(chancy, self._poll_interval, chancy.log)
        return reader

    async def refresh(self, chancy: Chancy) -> None:
        """Bring the app's replica up to date, if it was ever read."""
        if chancy in self._by_app:
            await self._by_app[chancy].refresh()

    def wake(self) -> None:
        """Let all readers follow a fold that was announced."""
        for reader in self._by_app.values():
            reader.wake()


def reader_of(chancy: Chancy) -> Reader:
    """Return what keeps this process's replica of the app's shared cache.

    Raises:
        MetricsLogError: The app has no metrics log.
    """
    plugin: Any = plugin_of(chancy)
    readers: Readers = plugin.readers
    return readers.of(chancy)
