# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Slow work beside the writer: allocate ahead, sync files, fold the log, grow the index."""

from __future__ import annotations

from collections.abc import Callable
import logging
import os
import threading
from typing import Optional

_logger = logging.getLogger(__name__)
_PAUSE_S = 0.5
_NICE = 10


class Maintenance:
    """A thread that runs its jobs soon after ``wake``, and then rests for a while.

    :param pause_s: the rest, in seconds.
    :param jobs: run in order; an exception is logged once per kind and the next job runs.
    """

    def __init__(
        self, name: str, jobs: list[Callable[[], None]], pause_s: float = _PAUSE_S
    ) -> None:
        self._jobs, self._pause_s = jobs, pause_s
        self._work, self._stop = threading.Event(), threading.Event()
        self._reported: set[str] = set()
        self._thread: Optional[threading.Thread] = threading.Thread(
            target=self._loop, name=name, daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Ask for a round."""
        self._work.set()

    def stop(self) -> None:
        """End the thread after the job in progress."""
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        # Linux gives each thread its own priority; the mapping comes first.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stop.is_set():
            self._work.wait()
            self._work.clear()
            for job in self._jobs:
                if self._stop.is_set():
                    return
                self._run(job)
            self._stop.wait(self._pause_s)

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # the map stays usable; the writer meets the cause itself
            text = repr(error)
            if text not in self._reported:
                self._reported.add(text)
                _logger.warning('map maintenance: %s', text)
