# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which point of one image is which of another: mutual, distinctive and one-to-one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netvlad_ros.loop_closure.geometry.features import Features
from netvlad_ros.types import Float32Array

IntArray = npt.NDArray[np.int64]
# Points this close are one point: SIFT repeats a point for each of its orientations.
SAME_POINT_PX = 1.0
# Of the similarity of equal descriptors; twins within it are not told apart.
ROUNDING = 1e-6


def match_mutual(query: Features, match: Features, ratio: float) -> IntArray:
    """Return index pairs (M, 2) of points that are each other's distinctive nearest neighbour.

    :param ratio: the second best must be farther by 1 / ratio, tested in both images.
    :returns: one-to-one in points as well as in rows, most alike first.
    """
    if min(len(query), len(match)) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    similarity = query.descriptors @ match.descriptors.T
    squared_ratio = ratio ** (1.0 / query.ratio_power)
    rows = np.arange(len(query))
    nearest, distinct = _nearest(similarity, squared_ratio)
    back, back_distinct = _nearest(np.ascontiguousarray(similarity.T), squared_ratio)
    keep = distinct & back_distinct[nearest] & (back[nearest] == rows)
    pairs = np.column_stack([rows[keep], nearest[keep]])
    order = np.argsort(-similarity[pairs[:, 0], pairs[:, 1]], kind='stable')
    return _one_per_point(pairs[order], query, match)


def _nearest(
    similarity: Float32Array, squared_ratio: float
) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Return for each row its best column, and whether the second best is far enough."""
    rows = np.arange(len(similarity))
    nearest = similarity.argmax(axis=1)
    best = similarity[rows, nearest]
    similarity[rows, nearest] = -2.0
    second = similarity.max(axis=1)
    similarity[rows, nearest] = best
    # The squared distance of unit vectors is 2 - 2 * similarity.
    return nearest, 1.0 - best + ROUNDING < squared_ratio * (1.0 - second)


def _one_per_point(pairs: IntArray, query: Features, match: Features) -> IntArray:
    """Keep the first match of each image point."""
    for column, features in enumerate((query, match)):
        points = np.round(features.points_px[pairs[:, column]] / SAME_POINT_PX).astype(np.int64)
        _, first = np.unique(points, axis=0, return_index=True)
        pairs = pairs[np.sort(first)]
    return pairs
