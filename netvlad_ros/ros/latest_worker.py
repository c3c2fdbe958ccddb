# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A thread that serves the newest item only: what it cannot serve in time is dropped, counted."""

from __future__ import annotations

from collections.abc import Callable
import threading
from typing import Generic, Optional, TypeVar

T = TypeVar('T')


class LatestWorker(Generic[T]):
    """Calls ``work`` in a thread of its own with the newest item that was offered.

    At most one item waits. An item that is replaced before its turn counts as dropped, so a
    slow network costs frames and never memory or growing delay.

    :param work: must not raise; it is called with one item at a time.
    """

    def __init__(self, work: Callable[[T], None], name: str) -> None:
        self._work = work
        self._condition = threading.Condition()
        self._item: Optional[T] = None
        self._stopping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items that were replaced by a newer one before their turn."""
        return self._dropped

    def offer(self, item: T) -> None:
        """Hand over the newest item; returns at once."""
        with self._condition:
            self._dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def stop(self) -> None:
        """Finish the item in work, drop the one that waits, and join the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._item is None and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                item, self._item = self._item, None
            assert item is not None
            self._work(item)
