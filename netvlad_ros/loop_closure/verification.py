# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Is the closure real, and what is the pose: geometry decides, VERIFIED or REJECTED.

``verification_score`` counts inliers, at most one per cell of a grid in either image: a poster
matched to a poster fills few cells, a place fills many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import time
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.config import VerificationConfig
from netvlad_ros.loop_closure.geometry.covariance import inverse_covariance
from netvlad_ros.loop_closure.geometry.features import make_extractor
from netvlad_ros.loop_closure.geometry.fundamental import epipolar_inliers
from netvlad_ros.loop_closure.geometry.matching import IntArray, match_mutual
from netvlad_ros.loop_closure.geometry.pnp import MIN_POINTS, absolute_pose, back_project
from netvlad_ros.loop_closure.geometry.relative_pose import relative_pose
from netvlad_ros.loop_closure.view import LocalView, View
from netvlad_ros.types import (
    ClosureStatus,
    FloatArray,
    LoopClosure,
    RejectReason,
    TransformKind,
)

BoolArray = npt.NDArray[np.bool_]

GRID_COLUMNS = 24
# Noise of consumer depth cameras grows with the square of depth (Khoshelham and Elberink 2012).
DEPTH_SIGMA_M = 0.002
DEPTH_SIGMA_PER_M = 0.002


@dataclass(frozen=True)
class _Geometry:
    """What an estimator found: which matches agree, and the pose if it measured one."""

    inliers: BoolArray
    kind: TransformKind = TransformKind.NONE
    T_match_query: Optional[FloatArray] = None
    covariance: Optional[FloatArray] = None


class Verifier:
    """Checks closures one by one; synchronous, thread-safe and repeatable bit for bit."""

    def __init__(self, config: VerificationConfig) -> None:
        self._config = config
        self.extractor = make_extractor(config)

    def verify(
        self,
        closure: LoopClosure,
        query: View,
        match: View,
        query_neighbours: Sequence[View] = (),
        match_neighbours: Sequence[View] = (),
    ) -> LoopClosure:
        """Return the closure as VERIFIED or REJECTED, with matches, score, pose and reason.

        :param query_neighbours: views near the query in its own session, nearest first; with
            odometry they give landmarks, and so a METRIC pose, to a camera without depth.
        :param match_neighbours: the same of the match.
        """
        deadline = time.monotonic() + self._config.time_budget_s
        a, b = query.local(self.extractor), match.local(self.extractor)
        if a is None or b is None:
            return _rejected(closure, RejectReason.NO_IMAGE)
        pairs = match_mutual(a.features, b.features, self._config.match_ratio)
        closure = replace(closure, num_matches=len(pairs), verification_score=0.0)
        if len(pairs) < self._config.min_inliers:
            return _rejected(closure, RejectReason.TOO_FEW_MATCHES)
        if time.monotonic() > deadline:
            return _rejected(closure, RejectReason.TIME_BUDGET)
        geometry = self._measure(a, b, pairs)
        if time.monotonic() > deadline:
            return _rejected(closure, RejectReason.TIME_BUDGET)
        return self._decide(closure, a, b, pairs, geometry)

    def _measure(self, a: LocalView, b: LocalView, pairs: IntArray) -> _Geometry:
        """Return the strongest statement the views allow."""
        step_px = max(a.features.step_px, b.features.step_px)
        error_px = self._config.max_error_px * step_px
        if a.rays is None or b.rays is None:
            points_a = a.features.points_px[pairs[:, 0]].astype(np.float64)
            points_b = b.features.points_px[pairs[:, 1]].astype(np.float64)
            return _Geometry(epipolar_inliers(points_a, points_b, error_px))
        covered = a.valid[pairs[:, 0]] & b.valid[pairs[:, 1]]
        for from_query in (True, False):
            metric = self._metric(a, b, pairs, covered, error_px, from_query)
            if metric is not None and int(metric.inliers.sum()) >= self._config.min_inliers:
                return metric
        focal = float(np.sqrt(a.focal_px * b.focal_px))
        kept = pairs[covered]
        found = relative_pose(a.rays[kept[:, 0]], b.rays[kept[:, 1]], focal, error_px)
        if found is None:
            return _Geometry(np.zeros(len(pairs), dtype=bool))
        inliers = _spread(found.inliers, covered)
        if found.kind == TransformKind.NONE:
            return _Geometry(inliers)
        return _Geometry(inliers, found.kind, found.T, found.covariance)

    def _metric(
        self,
        a: LocalView,
        b: LocalView,
        pairs: IntArray,
        covered: BoolArray,
        error_px: float,
        from_query: bool,
    ) -> Optional[_Geometry]:
        """Return the pose from the depth of the query, or of the match; None if too little."""
        source, target = (a, b) if from_query else (b, a)
        if source.depth_m is None or source.rays is None or target.rays is None:
            return None
        rows_source, rows_target = (pairs if from_query else pairs[:, ::-1]).T
        depth = source.depth_m[rows_source]
        usable = covered & np.isfinite(depth)
        if int(usable.sum()) < max(MIN_POINTS, self._config.min_inliers):
            return None
        sigma = DEPTH_SIGMA_M + DEPTH_SIGMA_PER_M * depth[usable] ** 2
        points, covariances = back_project(
            source.rays[rows_source[usable]], depth[usable], source.focal_px,
            error_px / 2.0, sigma,
        )
        pose = absolute_pose(
            points, covariances, target.rays[rows_target[usable]], target.focal_px,
            error_px,
        )
        if pose is None:
            return None
        T, covariance = pose.T, pose.covariance
        if not from_query:
            T, covariance = inverse_covariance(T, covariance)
        return _Geometry(_spread(pose.inliers, usable), TransformKind.METRIC, T, covariance)

    def _decide(
        self, closure: LoopClosure, a: LocalView, b: LocalView, pairs: IntArray, found: _Geometry
    ) -> LoopClosure:
        """Return the closure with its status, from the number of inliers and their spread."""
        inliers = pairs[found.inliers]
        score = float(min(
            _occupied_cells(a, inliers[:, 0]), _occupied_cells(b, inliers[:, 1])
        ))
        closure = replace(closure, num_inliers=len(inliers), verification_score=score)
        if len(inliers) < self._config.min_inliers or score < self._config.min_score:
            return _rejected(closure, RejectReason.TOO_FEW_INLIERS)
        return replace(
            closure,
            status=ClosureStatus.VERIFIED,
            reject_reason=RejectReason.NONE,
            transform_kind=found.kind,
            T_match_query=found.T_match_query,
            covariance=found.covariance,
        )


def _occupied_cells(view: LocalView, rows: IntArray) -> int:
    """Return how many square cells of the image hold at least one of the points."""
    size = view.camera.size_wh[0] / GRID_COLUMNS
    cells = np.floor((view.features.points_px[rows] + 0.5) / size).astype(np.int64)
    return len(np.unique(cells, axis=0))


def _spread(inliers: BoolArray, subset: BoolArray) -> BoolArray:
    """Return a mask over all matches from one over a subset of them."""
    out = np.zeros(len(subset), dtype=bool)
    out[subset] = inliers
    return out


def _rejected(closure: LoopClosure, reason: RejectReason) -> LoopClosure:
    return replace(closure, status=ClosureStatus.REJECTED, reject_reason=reason)
