# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judge closures: by their measured transform where poses are known, else by place."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Optional

import numpy as np
from scipy.spatial.transform import Rotation

from netvlad_ros.evaluation.truth import NEITHER, RIGHT, WRONG, Int8Array, Truth
from netvlad_ros.geometry import inverse
from netvlad_ros.types import ClosureStatus, FloatArray, LoopClosure, TransformKind

MAX_ROTATION_ERROR_DEG = 5.0
MAX_TRANSLATION_ERROR_M = 0.1
MAX_TRANSLATION_ERROR_SHARE = 0.05
MAX_DIRECTION_ERROR_DEG = 20.0
# A direction of travel is only measurable over some distance.
MIN_DIRECTION_DISTANCE_M = 0.2


@dataclass(frozen=True)
class PoseError:
    """Error of one measured transform.

    :param translation_m: NaN if the transform is not METRIC.
    :param direction_deg: between true and measured translation, NaN without a true translation.
    :param distance_m: true distance of the two cameras.
    :param nees: normalised estimation error squared of the 6 degrees of freedom; NaN without
        covariance. Its mean is 6 where the covariance is honest.
    """

    rotation_deg: float
    translation_m: float
    direction_deg: float
    distance_m: float
    nees: float


def true_pose_in_match(truth: Truth, query: int, match: int) -> Optional[FloatArray]:
    """Return the true pose of the query camera in the match camera, None if not known."""
    poses = truth.T_world_camera
    if poses is None or not (truth.known[query] and truth.known[match]):
        return None
    return np.asarray(inverse(poses[match]) @ poses[query])


def pose_error(closure: LoopClosure, T_true: FloatArray) -> PoseError:
    """Return the error of a closure's transform.

    The error vector is (x, y, z, rotation about X, Y, Z) on the fixed axes of the match camera,
    as geometry_msgs/PoseWithCovariance defines its covariance.
    """
    assert closure.T_match_query is not None
    T = closure.T_match_query
    rotation = Rotation.from_matrix(T[:3, :3] @ T_true[:3, :3].T).as_rotvec()
    shift = T[:3, 3] - T_true[:3, 3]
    is_metric = closure.transform_kind is TransformKind.METRIC
    nees = math.nan
    if is_metric and closure.covariance is not None:
        error = np.concatenate([shift, rotation])
        nees = float(error @ np.linalg.pinv(closure.covariance) @ error)
    lengths = float(np.linalg.norm(T[:3, 3]) * np.linalg.norm(T_true[:3, 3]))
    direction_deg = math.nan
    if lengths > 0.0:
        cosine = float(np.clip(T[:3, 3] @ T_true[:3, 3] / lengths, -1.0, 1.0))
        direction_deg = math.degrees(math.acos(cosine))
    return PoseError(
        rotation_deg=math.degrees(float(np.linalg.norm(rotation))),
        translation_m=float(np.linalg.norm(shift)) if is_metric else math.nan,
        direction_deg=direction_deg,
        distance_m=float(np.linalg.norm(T_true[:3, 3])),
        nees=nees,
    )


def agrees(kind: TransformKind, error: PoseError) -> bool:
    """Tell whether a measured transform is right."""
    if error.rotation_deg > MAX_ROTATION_ERROR_DEG:
        return False
    if kind is TransformKind.METRIC:
        share = MAX_TRANSLATION_ERROR_SHARE * error.distance_m
        return error.translation_m <= MAX_TRANSLATION_ERROR_M + share
    far = error.distance_m > MIN_DIRECTION_DISTANCE_M
    return not far or error.direction_deg <= MAX_DIRECTION_ERROR_DEG


def label_closure(closure: LoopClosure, truth: Truth, query: int, match: int) -> np.int8:
    """Return RIGHT, WRONG or NEITHER for a closure between two keyframe indices."""
    pair = np.asarray([query]), np.asarray([match])
    if not truth.allowed(*pair)[0]:
        return NEITHER
    measured = closure.transform_kind in (TransformKind.METRIC, TransformKind.UP_TO_SCALE)
    if closure.status is ClosureStatus.VERIFIED and measured:
        T_true = true_pose_in_match(truth, query, match)
        if T_true is not None:
            right = agrees(closure.transform_kind, pose_error(closure, T_true))
            return RIGHT if right else WRONG
    return np.int8(truth.labels(*pair)[0])


def label_closures(
    closures: tuple[LoopClosure, ...], truth: Truth, index_of: dict[int, int]
) -> Int8Array:
    """Return the labels of closures; those with keyframes of another run are NEITHER."""
    labels = []
    for closure in closures:
        query, match = index_of.get(closure.query.id), index_of.get(closure.match.id)
        known = query is not None and match is not None
        labels.append(label_closure(closure, truth, query, match) if known else NEITHER)  # type: ignore[arg-type]
    return np.asarray(labels, dtype=np.int8)


def metric_pose_errors(
    closures: tuple[LoopClosure, ...], truth: Truth, index_of: dict[int, int]
) -> list[PoseError]:
    """Return the errors of all VERIFIED METRIC closures whose true transform is known."""
    errors = []
    for closure in closures:
        if closure.status is not ClosureStatus.VERIFIED:
            continue
        if closure.transform_kind is not TransformKind.METRIC:
            continue
        if closure.query.id in index_of and closure.match.id in index_of:
            query, match = index_of[closure.query.id], index_of[closure.match.id]
            T_true = true_pose_in_match(truth, query, match)
            if T_true is not None:
                errors.append(pose_error(closure, T_true))
    return errors
