# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ranks all older keyframes for each keyframe, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import math

import numpy as np

from netvlad_ros.evaluation.metrics import NO_MATCH, labels_of, rank_matches
from netvlad_ros.evaluation.truth import RIGHT, BoolArray, Int8Array, Int64Array, Truth
from netvlad_ros.types import Float32Array, FloatArray

# No matrix of all pairs is held: a day of driving has tens of thousands of keyframes.
ROWS_PER_BLOCK = 128


@dataclass(frozen=True)
class Ranking:
    """What a recording holds for each of its N keyframes.

    :param matches: (N, depth) ranked matches, scores and labels in the arrays beside it.
    :param has_older: (N,) there is an older keyframe that is not masked.
    :param best_right: (N,) the right match that is the most similar, NO_MATCH if there is none;
        ``best_right_similarity`` says how similar.
    """

    matches: Int64Array
    scores: FloatArray
    labels: Int8Array
    has_older: BoolArray
    best_right: Int64Array
    best_right_similarity: FloatArray


def rank(
    descriptors: Float32Array,
    truth: Truth,
    returned: Sequence[Sequence[tuple[int, float]]],
    depth: int,
) -> Ranking:
    """Return the ranking of (N, D) descriptors; ``returned`` is as for ``rank_matches``."""
    count = len(descriptors)
    everyone = np.arange(count, dtype=np.int64)
    out = Ranking(
        np.full((count, depth), NO_MATCH, dtype=np.int64),
        np.full((count, depth), -np.inf),
        np.zeros((count, depth), dtype=np.int8),
        np.zeros(count, dtype=np.bool_),
        np.full(count, NO_MATCH, dtype=np.int64),
        np.full(count, -np.inf),
    )
    for rows in _blocks(everyone):
        similarity = descriptors[rows] @ descriptors.T
        allowed = truth.allowed(rows[:, None], everyone[None])
        labels = truth.labels(rows[:, None], everyone[None])
        found = rank_matches(similarity, allowed, [returned[row] for row in rows], depth)
        out.matches[rows], out.scores[rows] = found
        out.labels[rows] = labels_of(labels, found[0])
        out.has_older[rows] = allowed.any(axis=1)
        right = np.where(allowed & (labels == RIGHT), similarity, -np.inf)
        best = right.argmax(axis=1)
        out.best_right_similarity[rows] = right.max(axis=1)
        out.best_right[rows] = np.where(right.max(axis=1) > -np.inf, best, NO_MATCH)
    return out


def _blocks(everyone: Int64Array) -> Iterator[Int64Array]:
    """Yield parts of equal size: the product of a few rows alone would round differently."""
    yield from np.array_split(everyone, max(1, math.ceil(len(everyone) / ROWS_PER_BLOCK)))
