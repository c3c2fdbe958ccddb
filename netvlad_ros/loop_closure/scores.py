# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a search result is worth: rank, margin, and a score relative to the query's own past.

A raw similarity means nothing alone: its scale changes with the model and the scene. The margin
asks how far the best place stands out; the normalised score asks how alike two keyframes of one
place are for this model and scene, from the keyframe just before the query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math
from typing import Protocol

from netvlad_ros.config import ConsistencyConfig
from netvlad_ros.geometry import distance_m
from netvlad_ros.types import Candidate, Keyframe

# Squared distances below this are rounding of identical descriptors.
MIN_SQUARED_DISTANCE = 1e-6


class SearchResult(Protocol):
    """One row of a search, as ``netvlad_ros.keyframes.Neighbour``."""

    @property
    def keyframe_id(self) -> int:
        """Keyframe found."""

    @property
    def similarity(self) -> float:
        """Inner product of its descriptor with the query's."""


def same_neighbourhood(a: Keyframe, b: Keyframe, config: ConsistencyConfig) -> bool:
    """Tell whether two keyframes show the same place: near in order or in odometry.

    Both are only meaningful within one session; keyframes of two sessions are never neighbours.
    """
    if a.session != b.session:
        return False
    if abs(a.id - b.id) <= config.neighbourhood_keyframes:
        return True
    if a.T_odom_base is None or b.T_odom_base is None:
        return False
    return distance_m(a.T_odom_base, b.T_odom_base) <= config.neighbourhood_m


def normalised_score(similarity: float, reference_similarity: float) -> float:
    """Return how near a match is, compared with the query's own neighbour in time.

    The ratio of squared distances ``(1 - reference) / (1 - similarity)``: 1 says as alike as two
    keyframes in a row, 0 says nothing alike. It has the idea of the normalised score of DBoW2
    (Galvez-Lopez and Tardos 2012), whose ratio of similarities saturates for unit descriptors.

    :param reference_similarity: of the query to the keyframe just before it; NaN if there is none.
    :returns: 0 or more, or NaN without a reference.
    """
    if math.isnan(reference_similarity):
        return math.nan
    reference = max(1.0 - reference_similarity, MIN_SQUARED_DISTANCE)
    return reference / max(1.0 - similarity, MIN_SQUARED_DISTANCE)


def score(
    results: Sequence[SearchResult],
    keyframe: Callable[[int], Keyframe],
    config: ConsistencyConfig,
    reference_similarity: float = math.nan,
    keep: int = 5,
) -> list[Candidate]:
    """Return the best ``keep`` results with rank, margin and normalised score.

    :param results: sorted, most similar first. Search for more than ``keep``: the margin of a
        match needs a result outside its neighbourhood (8 neighbourhoods are plenty).
    :param keyframe: gives the keyframe of an id, as ``KeyframeMap.keyframe``.
    :param reference_similarity: of the query to the keyframe just before it in its session.
    """
    keyframes = [keyframe(item.keyframe_id) for item in results]
    out = []
    for rank, item in enumerate(results[:keep]):
        rivals = (
            other.similarity
            for other, rival in zip(results, keyframes, strict=True)
            if not same_neighbourhood(keyframes[rank], rival, config)
        )
        rival = next(rivals, math.nan)
        out.append(
            Candidate(
                keyframe_id=item.keyframe_id,
                similarity=item.similarity,
                margin=item.similarity - rival,
                normalised=normalised_score(item.similarity, reference_similarity),
                rank=rank,
            )
        )
    return out
