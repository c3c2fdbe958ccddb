# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A thread that serves the newest items: what it cannot serve in time is dropped and counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class BoundedWorker(Generic[T]):
    """Calls ``work`` in a thread of its own, oldest waiting item first.

    At most ``capacity`` items wait; one more pushes the oldest out, which counts as dropped. So
    a slow network costs frames and never memory or growing delay.

    :param work: must not raise; it is called with one item at a time.
    """

    def __init__(self, work: Callable[[T], None], name: str, capacity: int = 1) -> None:
        self._work = work
        self._capacity = capacity
        self._condition = threading.Condition()
        self._items: deque[T] = deque()
        self._stopping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items that a newer one pushed out before their turn."""
        return self._dropped

    def offer(self, item: T) -> None:
        """Hand over an item; returns at once."""
        with self._condition:
            if len(self._items) == self._capacity:
                self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._condition.notify()

    def stop(self) -> None:
        """Finish the item in work, drop those that wait, and join the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._items and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                item = self._items.popleft()
            self._work(item)
