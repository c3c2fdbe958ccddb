# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Support from consecutive queries: true matches walk along the map, false ones jump about.

A hypothesis is a walk through the keyframes of one session, forward or in reverse. A query whose
candidate continues the walk adds to its support; a hypothesis that misses ``max_misses`` queries
in a row is dropped (ORB-SLAM3 resets after 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netvlad_ros.config import ConsistencyConfig
from netvlad_ros.types import Candidate, Keyframe

# A walk may step back this far: neighbouring keyframes look alike, so the best match jitters.
JITTER_KEYFRAMES = 2


@dataclass(frozen=True)
class _Walk:
    """The matches of consecutive queries within one session of the map."""

    session: str
    last_id: int
    lowest_id: int
    highest_id: int
    forward: bool
    reverse: bool
    support: int
    misses: int = 0

    def extended(self, match: Keyframe, reach: int) -> _Walk | None:
        """Return the walk with one more match, or None if the match does not continue it."""
        step = abs(match.id - self.last_id)
        if match.session != self.session or step > reach * (self.misses + 1):
            return None
        forward = self.forward and match.id >= self.highest_id - JITTER_KEYFRAMES
        reverse = self.reverse and match.id <= self.lowest_id + JITTER_KEYFRAMES
        if not (forward or reverse):
            return None
        return _Walk(
            session=self.session,
            last_id=match.id,
            lowest_id=min(self.lowest_id, match.id),
            highest_id=max(self.highest_id, match.id),
            forward=forward,
            reverse=reverse,
            support=self.support + 1,
        )


class SequenceConsistency:
    """Counts, for each candidate, the consecutive queries that agree with it.

    Not thread-safe: one instance follows one stream of query keyframes, in their order.
    """

    def __init__(self, config: ConsistencyConfig) -> None:
        self._config = config
        self._walks: list[_Walk] = []

    def reset(self) -> None:
        """Forget all hypotheses: a new session, a jump in time, a declared kidnap."""
        self._walks = []

    def update(
        self, candidates: Sequence[Candidate], keyframe: Callable[[int], Keyframe]
    ) -> list[int]:
        """Take the candidates of the next query keyframe and return the support of each.

        :param candidates: those that may support a closure; none counts as a miss.
        :param keyframe: gives the keyframe of an id, as ``KeyframeMap.keyframe``.
        :returns: consecutive queries that agree with each candidate, this one included (>= 1).
        """
        reach = self._config.neighbourhood_keyframes
        extended: list[_Walk] = []
        continued: set[int] = set()
        support = []
        for candidate in candidates:
            match = keyframe(candidate.keyframe_id)
            best = _Walk(match.session, match.id, match.id, match.id, True, True, 1)
            for index, walk in enumerate(self._walks):
                longer = walk.extended(match, reach)
                if longer is None:
                    continue
                continued.add(index)
                if longer.support > best.support:
                    best = longer
            extended.append(best)
            support.append(best.support)
        missed = [
            _Walk(**{**walk.__dict__, 'misses': walk.misses + 1})
            for index, walk in enumerate(self._walks)
            if index not in continued and walk.misses + 1 < self._config.max_misses
        ]
        self._walks = extended + missed
        return support
