# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the robot saw a moment ago, across a step of its clock: no loop closes with it."""

from __future__ import annotations

from collections import deque


class Lately:
    """Ids of the keyframes of the last while, with stamps in the clock that runs now.

    The search leaves out the recent past of its session by stamp. Once the clock was set, as on a
    Jetson that learns the date minutes after its start, only ids tell what was a moment ago.

    :param while_ns: how long a keyframe counts as seen a moment ago.
    """

    def __init__(self, while_ns: int) -> None:
        self._while_ns = while_ns
        self._present: deque[tuple[int, int]] = deque()
        self._before: list[tuple[int, int]] = []

    def add(self, stamp_ns: int, keyframe_id: int) -> None:
        """Take a stored keyframe."""
        self._present.append((stamp_ns, keyframe_id))
        while self._present[0][0] < stamp_ns - self._while_ns:
            self._present.popleft()

    def step_clock(self, step_ns: int) -> None:
        """Count all so far as of before a step of the clock, negative for one set back."""
        self._before = [
            (stamp_ns + step_ns, id_) for stamp_ns, id_ in (*self._before, *self._present)
        ]
        self._present.clear()

    def forget(self) -> None:
        """Forget all: the robot is somewhere else."""
        self._before = []
        self._present.clear()

    def before_the_step(self, stamp_ns: int) -> frozenset[int]:
        """Return the ids seen within the while before a stamp, from before the last step."""
        newer_than_ns = stamp_ns - self._while_ns
        self._before = [entry for entry in self._before if entry[0] > newer_than_ns]
        return frozenset(id_ for _, id_ in self._before)
