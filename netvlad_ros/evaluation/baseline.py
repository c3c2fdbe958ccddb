# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What simpler systems reach on the same frames with the same descriptor.

*Peers' rule*: the best match after the exclusion, one threshold on its similarity. *Plain check*:
of the best 5, the one with most RootSIFT matches that fit one fundamental matrix, one threshold
on their number. Both are fixed here, apart from the detector's own geometry, so that tuning the
detector cannot move what it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from netvlad_ros.evaluation.evaluation import RETRIEVAL, Evaluation
from netvlad_ros.evaluation.metrics import NO_MATCH, Decisions, StageResult
from netvlad_ros.evaluation.thresholds import judge
from netvlad_ros.evaluation.truth import WRONG
from netvlad_ros.types import Float32Array, Frame

PEERS_RULE, PLAIN_CHECK = "peers' rule", 'plain check'
CANDIDATES = 5
RATIO = 0.8
MAX_ERROR_PX = 1.5
ENLARGE_BELOW_PX, ENLARGE_BY = 400, 3
_MIN_MATCHES = 8


@dataclass(frozen=True)
class _Local:
    """RootSIFT of one image; half precision, for a whole drive is kept."""

    points_px: Float32Array
    descriptors: np.ndarray[tuple[int, int], np.dtype[np.float16]]


class PlainCheck:
    """Keeps the local features of every keyframe and counts what two keyframes share."""

    def __init__(self) -> None:
        self._views: dict[int, _Local] = {}
        self._sift: Any = cv2.SIFT_create()  # type: ignore[attr-defined]

    def watch(self, index: int, frame: Frame) -> None:
        """Take the image of a keyframe."""
        gray = cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2GRAY)
        if gray.shape[1] < ENLARGE_BELOW_PX:
            gray = cv2.resize(gray, None, fx=ENLARGE_BY, fy=ENLARGE_BY)
        keypoints, found = self._sift.detectAndCompute(gray, None)
        if found is None:
            found = np.zeros((0, 128), dtype=np.float32)
        root = np.sqrt(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-6))
        points = np.asarray([k.pt for k in keypoints], dtype=np.float32).reshape(-1, 2)
        self._views[index] = _Local(points, root.astype(np.float16))

    def inliers(self, query: int, match: int) -> int:
        """Return how many one-to-one matches fit one fundamental matrix."""
        a, b = self._views[query], self._views[match]
        if min(len(a.points_px), len(b.points_px)) < _MIN_MATCHES:
            return 0
        similarity = a.descriptors.astype(np.float32) @ b.descriptors.astype(np.float32).T
        order = np.argpartition(-similarity, 1, axis=1)[:, :2]
        values = np.take_along_axis(similarity, order, axis=1)
        swap = values[:, 0] < values[:, 1]
        order[swap], values[swap] = order[swap][:, ::-1], values[swap][:, ::-1]
        nearest = order[:, 0]
        # Distances of unit vectors: |a - b|^2 = 2 - 2 similarity.
        distinct = (1.0 - values[:, 0]) < RATIO**2 * (1.0 - values[:, 1])
        rows = np.arange(len(nearest))
        mutual = similarity.argmax(axis=0)[nearest] == rows
        kept = np.flatnonzero(distinct & mutual)
        if len(kept) < _MIN_MATCHES:
            return 0
        cv2.setRNGSeed(0)
        # OpenCV can return no matrix together with a mask full of ones.
        matrix, mask = cv2.findFundamentalMat(
            a.points_px[kept], b.points_px[nearest[kept]], cv2.USAC_MAGSAC, MAX_ERROR_PX
        )
        return 0 if matrix is None or mask is None else int(mask.sum())


def baselines(evaluation: Evaluation, check: PlainCheck) -> dict[str, StageResult]:
    """Return the figures of both baselines; none without ground truth."""
    judgement = evaluation.judgement
    if judgement is None:
        return {}
    scores = np.full(len(judgement.queries), -np.inf)
    labels = np.full(len(judgement.queries), WRONG, dtype=np.int8)
    for row, query in enumerate(judgement.queries):
        for rank in range(CANDIDATES):
            match = int(judgement.ranking.matches[query, rank])
            if match == NO_MATCH:
                break
            count = check.inliers(int(query), match)
            if count > max(scores[row], 0.0):
                scores[row], labels[row] = count, judgement.ranking.labels[query, rank]
    plain = Decisions(scores, labels, judgement.has_revisit)
    return {PEERS_RULE: judge(judgement.decisions[RETRIEVAL]), PLAIN_CHECK: judge(plain)}
