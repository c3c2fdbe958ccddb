# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The stamps of the images of a session, to tell what a stamp out of order means."""

from __future__ import annotations

from typing import Optional

NS_PER_S = 1_000_000_000
# A looped recording may lose its first images while the node is busy.
BEGINNING_S = 5.0
# A clock that is set on the way, such as one that learns the date, leaps farther ahead than this
# and faster than any playback.
LEAP_S = 3600.0
FASTEST_PLAYBACK = 100.0


class ServedStamps:
    """First, last and last but one stamp of the images served in this session."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all: a session begins."""
        self._first_ns: Optional[int] = None
        self._before_ns: Optional[int] = None
        self._last_ns: Optional[int] = None
        self._arrived_s = 0.0

    def add(self, stamp_ns: int, arrived_s: float) -> None:
        """Take the stamp of an image that is served, and when it arrived by the steady clock."""
        if self._first_ns is None:
            self._first_ns = stamp_ns
        self._before_ns, self._last_ns = self._last_ns, stamp_ns
        self._arrived_s = arrived_s

    def step_to(self, stamp_ns: int) -> int:
        """Return how much later than the last stamp one is, 1 ns for the first of a session."""
        return 1 if self._last_ns is None else stamp_ns - self._last_ns

    def leaps(self, step_ns: int, arrived_s: float) -> bool:
        """Return whether the clock was set ahead since the last image."""
        passed_s = arrived_s - self._arrived_s
        return step_ns / NS_PER_S > max(LEAP_S, FASTEST_PLAYBACK * passed_s)

    def last_was_ahead(self, stamp_ns: int) -> bool:
        """Return whether the last stamp alone was wrong: a new one follows the last but one."""
        return self._before_ns is not None and stamp_ns > self._before_ns

    def drop_last(self) -> None:
        """Go back to the last but one stamp."""
        self._last_ns, self._before_ns = self._before_ns, None

    def begins_anew(self, stamp_ns: int) -> bool:
        """Return whether a stamp is from the beginning of the session or before it.

        So begins a looped recording, another one, and a simulation that is reset.
        """
        return self._first_ns is None or stamp_ns <= self._first_ns + BEGINNING_S * NS_PER_S
