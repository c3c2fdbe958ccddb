# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames in the order of time: judging is by stamps, and a recording may hold wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional

from netvlad_ros.evaluation.sources import SkipCounts
from netvlad_ros.types import Frame

_NS_PER_S = 1_000_000_000
# An image older than the last one by no more than this is late.
_TIME_JUMP_NS = _NS_PER_S


class RisingStamps:
    """Leaves out frames so that stamps rise.

    :ivar seen: frames that came in.
    :ivar skipped: those left out, by reason.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.skipped = SkipCounts()

    def of(self, frames: Iterable[tuple[int, Frame]]) -> Iterator[tuple[int, Frame]]:
        """Yield those whose stamp follows the one before.

        A stamp far ahead of the next one, which follows the last but one, was alone wrong, as the
        node judges it (``ros/served_stamps.py``): it must not hide all that come after it.
        """
        last_ns: Optional[int] = None
        held: Optional[tuple[int, Frame]] = None
        for index, frame in frames:
            self.seen += 1
            stamp_ns = frame.stamp_ns
            if held is not None:
                ahead_ns = held[1].stamp_ns - stamp_ns
                follows_last = last_ns is None or stamp_ns > last_ns
                if ahead_ns >= 0 and not (follows_last and ahead_ns > _TIME_JUMP_NS):
                    self.skipped.add(
                        'stamp not newer than the last',
                        f'{stamp_ns / _NS_PER_S:.3f} s after {held[1].stamp_ns / _NS_PER_S:.3f} s',
                    )
                    continue
                if ahead_ns >= 0:
                    self.skipped.add(
                        'stamp ahead of the one after it', f'{held[1].stamp_ns / _NS_PER_S:.3f} s'
                    )
                else:
                    last_ns = held[1].stamp_ns
                    yield held
            held = index, frame
        if held is not None:
            yield held
