# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the stamp of an image means: the next one, a late one, a clock that was set, a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

NS_PER_S = 1_000_000_000
# An image that is older than the last one by no more than this is only late.
TIME_JUMP_S = 1.0
# A looped recording may lose its first images while the node is busy.
BEGINNING_S = 5.0
# A clock that is set on the way, such as one that learns the date, leaps farther ahead than this
# and faster than any playback.
LEAP_S = 3600.0
FASTEST_PLAYBACK = 100.0


@dataclass(frozen=True)
class StampVerdict:
    """What the stamp of an image means: by default that it follows the one before.

    :ivar serves: the image is processed.
    :ivar problem: what to count, empty if nothing is wrong; ``text`` says it with its values.
    :ivar clock_step_ns: by how much the clock was set, of a robot that stayed where it was.
    :ivar begins_session: earlier stamps tell nothing about the images from here on.
    """

    serves: bool = True
    problem: str = ''
    text: str = ''
    clock_step_ns: Optional[int] = None
    begins_session: bool = False


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

    def judge(self, stamp_ns: int, arrived_s: float, time_jump_s: float) -> StampVerdict:
        """Return what to do with an image; a last stamp that proves wrong is forgotten.

        :param arrived_s: by the steady clock.
        :param time_jump_s: an image that is older than the last one by no more than this is late.
        """
        if self._last_ns is None:
            return StampVerdict()
        step_ns = stamp_ns - self._last_ns
        step_s = step_ns / NS_PER_S
        if step_ns > 0:
            if step_s <= max(LEAP_S, FASTEST_PLAYBACK * (arrived_s - self._arrived_s)):
                return StampVerdict()
            return StampVerdict(
                problem='image stamps jumped ahead',
                text=f'image stamps jumped ahead by {step_s:.1f} s',
                clock_step_ns=step_ns,
            )
        if -step_s <= time_jump_s:
            return StampVerdict(
                serves=False,
                problem='image stamp not newer',
                text=f'image stamp repeats or is {-step_s:.3f} s too old',
            )
        if self._before_ns is not None and stamp_ns > self._before_ns:
            # The new stamp follows the last but one, so the last alone was wrong.
            self._last_ns, self._before_ns = self._before_ns, None
            return StampVerdict(
                problem='image stamp ahead',
                text=f'the stamp of an image was {-step_s:.1f} s ahead of the one after it',
                clock_step_ns=step_ns,
            )
        return StampVerdict(
            problem='image stamps jumped backwards',
            text=f'image stamps jumped back by {-step_s:.1f} s: a new session begins',
            # The robot of a clock that was set is still where it was.
            clock_step_ns=None if self._begins_anew(stamp_ns) else step_ns,
            begins_session=True,
        )

    def _begins_anew(self, stamp_ns: int) -> bool:
        """Return whether a stamp is from the beginning of the session or before it.

        So begins a looped recording, another one, and a simulation that is reset.
        """
        return self._first_ns is None or stamp_ns <= self._first_ns + BEGINNING_S * NS_PER_S
