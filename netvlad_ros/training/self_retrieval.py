# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How well augmented images find their neighbours: the validation of place-labelled training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netvlad_ros.training.relations import Relations
from netvlad_ros.types import Float32Array

_BLOCK = 1024


@dataclass(frozen=True)
class RetrievalScores:
    """Shares of 1 over images that have another image of their place.

    :param recall_at_1: the most similar image is of the same place.
    :param recall_at_100_precision: likewise, and more similar than any wrong best match.
    :param average_precision: area under precision over recall of the best matches.
    """

    queries: int
    recall_at_1: float
    recall_at_100_precision: float
    average_precision: float


def self_retrieval(
    queries: Float32Array, database: Float32Array, relations: Relations
) -> RetrievalScores:
    """Search each row of ``queries`` in ``database`` without the image itself.

    :param queries: (N, D) unit descriptors of one view of each image.
    :param database: (N, D) unit descriptors of the plain images, in the same order.
    """
    count = len(queries)
    everything = np.arange(count)
    best_similarity, is_right = np.empty(count), np.zeros(count, dtype=bool)
    has_right = np.zeros(count, dtype=bool)
    for start in range(0, count, _BLOCK):
        rows = everything[start : start + _BLOCK]
        same, different = relations.pairs(rows, everything)
        same[np.arange(len(rows)), rows] = False
        similarity = np.where(same | different, queries[rows] @ database.T, -np.inf)
        best = similarity.argmax(axis=1)
        best_similarity[rows] = similarity.max(axis=1)
        is_right[rows] = same[np.arange(len(rows)), best]
        has_right[rows] = same.any(axis=1)
    total = max(1, int(has_right.sum()))
    wrong = best_similarity[~is_right & np.isfinite(best_similarity)]
    threshold = wrong.max() if len(wrong) else -np.inf
    order = np.argsort(-best_similarity, kind='stable')
    ranked = is_right[order]
    precision = np.cumsum(ranked) / np.arange(1, count + 1)
    return RetrievalScores(
        queries=int(has_right.sum()),
        recall_at_1=float(is_right.sum() / total),
        recall_at_100_precision=float((is_right & (best_similarity > threshold)).sum() / total),
        average_precision=float(precision[ranked].sum() / total),
    )
