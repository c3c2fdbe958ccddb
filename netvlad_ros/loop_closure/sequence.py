# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval over a short sequence of descriptors, where one image says too little.

The similarity of a match becomes the mean over the last keyframes of the query and the keyframes
before the match (the same way round) or after it (in reverse). It is SeqSLAM's idea (Milford and
Wyeth 2012) at the speed that keyframes spaced by motion have: one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netvlad_ros.loop_closure.scores import SearchResult
from netvlad_ros.types import Float32Array, Keyframe

# A step of the query may be matched this many keyframes off: spacing is never quite equal.
SLACK_KEYFRAMES = 1


@dataclass(frozen=True)
class SequenceResult:
    """A search result whose similarity is that of a sequence."""

    keyframe_id: int
    similarity: float


def rank_by_sequence(
    results: Sequence[SearchResult],
    recent: Float32Array,
    keyframes: Callable[[Sequence[int]], Sequence[Keyframe]],
    descriptors: Callable[[Sequence[int]], Float32Array],
) -> list[SequenceResult]:
    """Return the results ranked by the similarity of the sequences that end at them.

    :param recent: (L, D) unit descriptors of the query and the keyframes before it, newest first.
    :param keyframes: gives those keyframes of the ids asked for that exist.
    :param descriptors: gives the descriptors (N, D) of existing ids, in their order.
    """
    length = len(recent)
    if length < 2 or not results:
        return [SequenceResult(item.keyframe_id, item.similarity) for item in results]
    reach = length - 1 + SLACK_KEYFRAMES
    wanted = sorted({
        id_
        for item in results
        for id_ in range(item.keyframe_id - reach, item.keyframe_id + reach + 1)
        if id_ >= 0
    })
    found = list(keyframes(wanted))
    column = {keyframe.id: index for index, keyframe in enumerate(found)}
    session = {keyframe.id: keyframe.session for keyframe in found}
    similarity = recent @ descriptors([keyframe.id for keyframe in found]).T
    ranked = [
        SequenceResult(
            item.keyframe_id,
            max(
                _along(item.keyframe_id, direction, similarity, column, session)
                for direction in (-1, 1)
            ),
        )
        for item in results
    ]
    return sorted(ranked, key=lambda item: (-item.similarity, item.keyframe_id))


def _along(
    keyframe_id: int,
    direction: int,
    similarity: Float32Array,
    column: dict[int, int],
    session: dict[int, str],
) -> float:
    """Return the mean similarity of the query's past with keyframes in one direction."""
    values = [float(similarity[0, column[keyframe_id]])]
    for step in range(1, len(similarity)):
        centre = keyframe_id + direction * step
        near = [
            float(similarity[step, column[id_]])
            for id_ in range(centre - SLACK_KEYFRAMES, centre + SLACK_KEYFRAMES + 1)
            if id_ in column and session[id_] == session[keyframe_id]
        ]
        if near:
            values.append(max(near))
    return float(np.mean(values))
