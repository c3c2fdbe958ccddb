# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Is the closure real, and what is the pose: geometry decides, VERIFIED or REJECTED.

``verification_score`` is the number of inliers, discounted where they crowd: the geometric mean
of the inliers and of the cells of a grid that they fill in the image where they fill fewer. A
poster matched to a poster fills few cells, a place fills many. Without depth nothing tells a view
from the same scene seen from farther back, and the score is discounted by how much less alike the
match looks than the query's best candidate.

``check`` is for every candidate. ``measure`` finds the METRIC pose that one camera and odometry
allow; it takes longer than many checks, and is for the closure that won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import time
from typing import Optional

import cv2
import numpy as np
import numpy.typing as npt

from netvlad_ros.config import VerificationConfig
from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.geometry.bundle import Adjusted, adjust
from netvlad_ros.loop_closure.geometry.covariance import inverse_covariance
from netvlad_ros.loop_closure.geometry.features import Features, make_extractor
from netvlad_ros.loop_closure.geometry.fundamental import epipolar_inliers
from netvlad_ros.loop_closure.geometry.landmarks import Sighting, sighting, triangulate
from netvlad_ros.loop_closure.geometry.matching import IntArray, match_mutual
from netvlad_ros.loop_closure.geometry.pnp import MIN_POINTS, absolute_pose, back_project
from netvlad_ros.loop_closure.geometry.relative_pose import relative_pose, sampson_px
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
# Part of the noise that all points share (lens model, light, timing), so that it neither averages
# out nor shows in the residuals. Measured on the rendered drive, where it makes the mean NEES
# that of an honest covariance.
DEPTH_SHARED_NOISE = 0.019
# A pose from fewer of the inliers than this would contradict most of what the views agree on.
MIN_LANDMARK_PART = 0.25
MIN_AGREEING_PART = 0.9
# Depth cameras do not see what is nearer.
NEAREST_M = 0.3
# Without a pose nothing else tells a place from the same building seen from afar.
MIN_SIZE_RATIO = 0.7
# A match that looks this much less alike than the best candidate counts 1/e of its score.
SIMILARITY_SCALE = 0.2


@dataclass(frozen=True)
class _Geometry:
    """What an estimator found: which matches agree, and the pose if it measured one."""

    inliers: BoolArray
    kind: TransformKind = TransformKind.NONE
    T_match_query: Optional[FloatArray] = None
    covariance: Optional[FloatArray] = None


@dataclass(frozen=True)
class Checked:
    """The answer on a closure, and (M, 2) rows of the features of query and match that agree."""

    closure: LoopClosure
    inliers: IntArray


@dataclass(frozen=True)
class _Sides:
    """Which view gives the points in space, and which sees them.

    :param pairs: (M, 2) rows of the source and of the target.
    """

    source: LocalView
    target: LocalView
    pairs: IntArray
    from_query: bool


class Verifier:
    """Checks closures one by one; synchronous, thread-safe and repeatable bit for bit."""

    def __init__(self, config: VerificationConfig) -> None:
        self._config = config
        self.extractor = make_extractor(config)

    def check(
        self, closure: LoopClosure, query: View, match: View, best_similarity: float = -1.0
    ) -> Checked:
        """Find the closure VERIFIED or REJECTED, with matches, score, pose and reason.

        :param best_similarity: of the query's best candidate.
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
        geometry = self._geometry(a, b, pairs)
        if time.monotonic() > deadline:
            return _rejected(closure, RejectReason.TIME_BUDGET)
        return self._decide(closure, a, b, pairs, geometry, best_similarity)

    def measure(
        self,
        checked: Checked,
        query: View,
        match: View,
        query_neighbours: Sequence[View],
        match_neighbours: Sequence[View],
    ) -> LoopClosure:
        """Return the closure with a METRIC pose where odometry and neighbouring views give one.

        :param query_neighbours: views near the query in its own session, nearest first.
        :param match_neighbours: the same of the match.
        """
        closure = checked.closure
        a, b = query.local(self.extractor), match.local(self.extractor)
        if (
            closure.status is not ClosureStatus.VERIFIED
            or closure.transform_kind is TransformKind.METRIC
            or a is None or a.rays is None or b is None or b.rays is None
        ):
            return closure
        found = self._from_landmarks(a, b, checked.inliers, query_neighbours, match_neighbours)
        if found is None:
            return closure
        return replace(
            closure, transform_kind=TransformKind.METRIC, T_match_query=found.T,
            covariance=found.covariance,
        )

    def _geometry(self, a: LocalView, b: LocalView, pairs: IntArray) -> _Geometry:
        """Return the strongest statement that two views allow."""
        if a.rays is None or b.rays is None:
            return _Geometry(self._epipolar(a, b, pairs))
        error_rad = self._error_rad(a, b)
        covered = a.valid[pairs[:, 0]] & b.valid[pairs[:, 1]]
        metric = self._from_depth(a, b, pairs, covered, error_rad)
        count = 0 if metric is None else int(metric.inliers.sum())
        if metric is not None and 2 * count >= int(covered.sum()):
            return metric
        focal = float(np.sqrt(a.focal_px * b.focal_px))
        kept = pairs[covered]
        found = relative_pose(a.rays[kept[:, 0]], b.rays[kept[:, 1]], focal, error_rad * focal)
        if found is None or int(found.inliers.sum()) <= 2 * count:
            return metric or _Geometry(np.zeros(len(pairs), dtype=bool))
        # Depth is of little of what is seen, such as the robot itself: the rest moved otherwise.
        inliers = _spread(found.inliers, covered)
        if found.kind == TransformKind.NONE:
            return _Geometry(inliers)
        return _Geometry(inliers, found.kind, found.T, found.covariance)

    def _error_rad(self, a: LocalView, b: LocalView) -> float:
        """Return the error of an inlier as an angle: two views may have pixels of two sizes."""
        return self._config.max_error_px * max(
            view.features.step_px / view.focal_px for view in (a, b)
        )

    def _epipolar(self, a: LocalView, b: LocalView, pairs: IntArray) -> BoolArray:
        """Return the matches of uncalibrated views that agree, both taken at one size."""
        width_a, width_b = (float(view.camera.size_wh[0]) for view in (a, b))
        width = float(np.sqrt(width_a * width_b))
        points_a = a.features.points_px[pairs[:, 0]].astype(np.float64) * (width / width_a)
        points_b = b.features.points_px[pairs[:, 1]].astype(np.float64) * (width / width_b)
        step = max(a.features.step_px * width / width_a, b.features.step_px * width / width_b)
        return epipolar_inliers(points_a, points_b, self._config.max_error_px * step)

    def _from_depth(
        self, a: LocalView, b: LocalView, pairs: IntArray, covered: BoolArray, error_rad: float
    ) -> Optional[_Geometry]:
        """Return the pose from the depth image of the query, else of the match.

        Matches out of reach of the depth camera agree with it as those of one camera do.
        """
        for sides in (_Sides(a, b, pairs, True), _Sides(b, a, pairs[:, ::-1], False)):
            if sides.source.depth_m is None:
                continue
            depth = sides.source.depth_m[sides.pairs[:, 0]]
            sigma = DEPTH_SIGMA_M + DEPTH_SIGMA_PER_M * depth**2
            metric = _metric(sides, covered, depth, sigma, error_rad, DEPTH_SHARED_NOISE)
            if metric is not None and int(metric.inliers.sum()) >= self._config.min_inliers:
                without = covered & ~np.isfinite(depth)
                agree = _agree(metric, a, b, pairs[without], error_rad)
                return replace(metric, inliers=metric.inliers | _spread(agree, without))
        return None

    def _from_landmarks(
        self,
        a: LocalView,
        b: LocalView,
        pairs: IntArray,
        neighbours_a: Sequence[View],
        neighbours_b: Sequence[View],
    ) -> Optional[Adjusted]:
        """Return the pose from points triangulated with odometry, on the side that has more."""
        assert a.rays is not None and b.rays is not None
        error_rad = self._error_rad(a, b)
        seen_a = self._sightings(a, pairs[:, 0], neighbours_a, error_rad)
        seen_b = self._sightings(b, pairs[:, 1], neighbours_b, error_rad)
        all_pairs = np.ones(len(pairs), dtype=bool)
        best: Optional[_Geometry] = None
        for sides, seen in (
            (_Sides(a, b, pairs, True), seen_a),
            (_Sides(b, a, pairs[:, ::-1], False), seen_b),
        ):
            rays = a.rays if sides.from_query else b.rays
            depth, sigma = triangulate(
                rays[sides.pairs[:, 0]], seen, sides.source.focal_px,
                error_rad * sides.source.focal_px,
            )  # fmt: skip
            metric = _metric(sides, all_pairs, depth, sigma, error_rad, 0.0)
            if metric is not None and (best is None or metric.inliers.sum() > best.inliers.sum()):
                best = metric
        if (
            best is None or best.T_match_query is None
            or int(best.inliers.sum()) < MIN_LANDMARK_PART * len(pairs)
        ):
            return None
        focal = float(np.sqrt(a.focal_px * b.focal_px))
        adjusted = adjust(
            best.T_match_query, a.rays[pairs[:, 0]], b.rays[pairs[:, 1]], seen_a, seen_b, focal,
            error_rad * focal, self._config.odometry_noise,
        )
        if adjusted is None or adjusted.agree.mean() < MIN_AGREEING_PART:
            return None
        return adjusted

    def _sightings(
        self, centre: LocalView, rows: IntArray, neighbours: Sequence[View], error_rad: float
    ) -> list[Sighting]:
        """Return what the neighbours of a view see of its points in ``rows``."""
        T_centre = _camera_in_odom(centre)
        if T_centre is None or centre.rays is None:
            return []
        features, rays = centre.features, centre.rays[rows]
        points = Features(
            features.points_px[rows], features.descriptors[rows], features.step_px,
            features.ratio_power,
        )
        out = []
        for view in neighbours:
            near = view.local(self.extractor)
            T_near = None if near is None else _camera_in_odom(near)
            if near is None or near.rays is None or T_near is None:
                continue
            seen = match_mutual(points, near.features, self._config.match_ratio)
            seen = seen[near.valid[seen[:, 1]]]
            found = sighting(
                inverse(T_near) @ T_centre, seen[:, 0], rays[seen[:, 0]], near.rays[seen[:, 1]],
                centre.focal_px, error_rad * centre.focal_px,
            )
            if found is not None:
                out.append(found)
        return out

    def _decide(
        self,
        closure: LoopClosure,
        a: LocalView,
        b: LocalView,
        pairs: IntArray,
        found: _Geometry,
        best_similarity: float,
    ) -> Checked:
        """Return the closure with its status, from the number of inliers and their spread."""
        inliers = pairs[found.inliers]
        cells = min(_occupied_cells(a, inliers[:, 0]), _occupied_cells(b, inliers[:, 1]))
        score = float(np.sqrt(cells * len(inliers)))
        if found.kind != TransformKind.METRIC:
            lead = max(best_similarity - closure.similarity, 0.0)
            score *= float(np.exp(-lead / SIMILARITY_SCALE))
        closure = replace(closure, num_inliers=len(inliers), verification_score=score)
        if len(inliers) < self._config.min_inliers or score < self._config.min_score:
            return _rejected(closure, RejectReason.TOO_FEW_INLIERS)
        if found.kind == TransformKind.NONE and _size_ratio(a, b, inliers) < MIN_SIZE_RATIO:
            return _rejected(closure, RejectReason.DEGENERATE_GEOMETRY)
        verified = replace(
            closure,
            status=ClosureStatus.VERIFIED,
            reject_reason=RejectReason.NONE,
            transform_kind=found.kind,
            T_match_query=found.T_match_query,
            covariance=found.covariance,
        )
        return Checked(verified, inliers)


def _metric(
    sides: _Sides,
    subset: BoolArray,
    depth_m: FloatArray,
    sigma_m: FloatArray,
    error_rad: float,
    shared_noise: float,
) -> Optional[_Geometry]:
    """Return the METRIC pose from the depth (M,) of matched points; None if too few have one."""
    source, target = sides.source, sides.target
    usable = subset & np.isfinite(depth_m)
    if source.rays is None or target.rays is None or int(usable.sum()) < MIN_POINTS:
        return None
    rows = sides.pairs[usable]
    points, covariances = back_project(
        source.rays[rows[:, 0]], depth_m[usable], source.focal_px,
        0.5 * error_rad * source.focal_px, sigma_m[usable],
    )  # fmt: skip
    pose = absolute_pose(
        points, covariances, target.rays[rows[:, 1]], target.focal_px,
        error_rad * target.focal_px, shared_noise,
    )  # fmt: skip
    if pose is None:
        return None
    T, covariance = pose.T, pose.covariance
    if not sides.from_query:
        T, covariance = inverse_covariance(T, covariance)
    return _Geometry(_spread(pose.inliers, usable), TransformKind.METRIC, T, covariance)


def _agree(
    metric: _Geometry, a: LocalView, b: LocalView, pairs: IntArray, error_rad: float
) -> BoolArray:
    """Tell which matches (M, 2) without depth a METRIC pose allows."""
    T = metric.T_match_query
    assert T is not None and a.rays is not None and b.rays is not None
    rays_a, rays_b = a.rays[pairs[:, 0]], b.rays[pairs[:, 1]]
    far = np.column_stack([rays_a, np.ones(len(rays_a))]) @ T[:3, :3].T
    # Without a translation there is no epipolar line: nothing moves farther than a near point.
    moved = np.linalg.norm(far[:, :2] / np.maximum(far[:, 2:], 1e-9) - rays_b, axis=1)
    most = error_rad + float(np.linalg.norm(T[:3, 3])) / NEAREST_M
    return np.asarray((np.abs(sampson_px(T, rays_a, rays_b, 1.0)) < error_rad) & (moved <= most))


def _camera_in_odom(view: LocalView) -> Optional[FloatArray]:
    """Return the camera's pose in the odometry frame, None if odometry or mounting is unknown."""
    if view.T_odom_base is None or view.camera.T_base_camera is None:
        return None
    return view.T_odom_base @ view.camera.T_base_camera


def _occupied_cells(view: LocalView, rows: IntArray) -> int:
    """Return how many square cells of the image hold at least one of the points."""
    size = view.camera.size_wh[0] / GRID_COLUMNS
    cells = np.floor((view.features.points_px[rows] + 0.5) / size).astype(np.int64)
    return len(np.unique(cells, axis=0))


def _size_ratio(a: LocalView, b: LocalView, inliers: IntArray) -> float:
    """Return 1 where both views see the inliers at one size, 0.5 where one sees them doubled."""
    points_a = a.features.points_px[inliers[:, 0]] / a.camera.size_wh[0]
    points_b = b.features.points_px[inliers[:, 1]] / b.camera.size_wh[0]
    similarity, _ = cv2.estimateAffinePartial2D(points_a, points_b, method=cv2.LMEDS)
    if similarity is None:
        return 0.0
    scale = float(np.hypot(similarity[0, 0], similarity[1, 0]))
    return min(scale, 1.0 / max(scale, 1e-6))


def _spread(inliers: BoolArray, subset: BoolArray) -> BoolArray:
    """Return a mask over all matches from one over a subset of them."""
    out = np.zeros(len(subset), dtype=bool)
    out[subset] = inliers
    return out


def _rejected(closure: LoopClosure, reason: RejectReason) -> Checked:
    rejected = replace(closure, status=ClosureStatus.REJECTED, reject_reason=reason)
    return Checked(rejected, np.zeros((0, 2), dtype=np.int64))
