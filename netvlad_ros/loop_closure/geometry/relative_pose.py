# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The relative pose of one calibrated camera from matches alone: direction, not length.

Two degeneracies are told apart. If a pure rotation explains the matches, the direction of travel
is noise: ROTATION_ONLY. If one plane does, two poses can explain it (Longuet-Higgins 1986); when
both fit, none is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np
import numpy.typing as npt
import poselib
from scipy.spatial.transform import Rotation

from netvlad_ros.loop_closure.geometry.covariance import MAD_TO_SIGMA, skew
from netvlad_ros.types import FloatArray, TransformKind

BoolArray = npt.NDArray[np.bool_]

MIN_MATCHES = 8
MAX_ITERATIONS = 500
# Below this parallax, in units of the inlier threshold, a translation only fits the noise.
ROTATION_ONLY_PARALLAX = 1.0
# A plane that holds this part of the inliers leaves the rest too few to decide between its poses.
PLANAR_PART = 0.6
# Two poses of a plane are ambiguous when the worse keeps this part of the better one's inliers.
AMBIGUOUS_PART = 0.9
# A translation that is not measured, in m^2 (or squared unit lengths): no information.
UNKNOWN_VARIANCE = 1e6


@dataclass(frozen=True)
class RelativePose:
    """What two views of one camera say about its motion.

    :param kind: UP_TO_SCALE, ROTATION_ONLY, or NONE where a plane leaves two poses.
    :param T: (4, 4) maps the first view's frame into the second's; translation of unit length.
    """

    kind: TransformKind
    T: FloatArray
    covariance: FloatArray
    inliers: BoolArray
    planar: bool = False


def relative_pose(
    rays_a: FloatArray,
    rays_b: FloatArray,
    focal_px: float,
    max_error_px: float,
    seed: int = 0,
) -> Optional[RelativePose]:
    """Return the pose of view a in the frame of view b from matched rays, None if there is none.

    :param rays_a: (N, 2) undistorted, at depth 1; rays_b likewise.
    :param focal_px: makes pixels of ray errors.
    """
    if len(rays_a) < MIN_MATCHES:
        return None
    T, inliers = _robust_pose(rays_a, rays_b, focal_px, max_error_px, seed)
    length = float(np.linalg.norm(T[:3, 3]))
    if not np.isfinite(T).all() or length == 0.0 or int(inliers.sum()) < MIN_MATCHES:
        return None
    T[:3, 3] /= length
    a, b = rays_a[inliers], rays_b[inliers]
    rotation = _rotation_only(a, b, focal_px, max_error_px)
    if rotation is not None:
        return RelativePose(TransformKind.ROTATION_ONLY, rotation[0], rotation[1], inliers)
    planar, ambiguous = _planar(T, a, b, focal_px, max_error_px, seed)
    covariance = _covariance(T, a, b, focal_px)
    kind = TransformKind.NONE if ambiguous else TransformKind.UP_TO_SCALE
    return RelativePose(kind, T, covariance, inliers, planar)


def _robust_pose(
    rays_a: FloatArray, rays_b: FloatArray, focal_px: float, max_error_px: float, seed: int
) -> tuple[FloatArray, BoolArray]:
    """Return the pose (4, 4) that most matches agree with, and which do."""
    camera = {'model': 'SIMPLE_PINHOLE', 'width': 0, 'height': 0, 'params': [focal_px, 0.0, 0.0]}
    options = {
        'max_epipolar_error': max_error_px,
        'max_iterations': MAX_ITERATIONS,
        'min_iterations': 50,
        'seed': seed,
    }
    pose, info = poselib.estimate_relative_pose(
        rays_a * focal_px, rays_b * focal_px, camera, camera, options, {}
    )
    T = np.eye(4)
    T[:3, :] = pose.Rt
    return T, np.asarray(info['inliers'], dtype=bool)


def sampson_px(
    T: FloatArray, rays_a: FloatArray, rays_b: FloatArray, focal_px: float
) -> FloatArray:
    """Return the signed Sampson errors (N,) of matches in pixels."""
    a = np.column_stack([rays_a, np.ones(len(rays_a))])
    b = np.column_stack([rays_b, np.ones(len(rays_b))])
    E = skew(T[:3, 3]) @ T[:3, :3]
    Ea, Eb = a @ E.T, b @ E
    norm = np.sqrt(Ea[:, 0] ** 2 + Ea[:, 1] ** 2 + Eb[:, 0] ** 2 + Eb[:, 1] ** 2)
    return np.asarray(focal_px * np.einsum('ni,ni->n', b, Ea) / np.maximum(norm, 1e-12))


def _unit(rays: FloatArray) -> FloatArray:
    directions = np.column_stack([rays, np.ones(len(rays))])
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def _rotation_only(
    rays_a: FloatArray, rays_b: FloatArray, focal_px: float, max_error_px: float
) -> Optional[tuple[FloatArray, FloatArray]]:
    """Return the pose and covariance of a pure rotation if it explains the matches, else None."""
    a, b = _unit(rays_a), _unit(rays_b)
    weights = np.ones(len(a))
    R = np.eye(3)
    errors = np.zeros(len(a))
    for _ in range(5):
        rotation, _ = Rotation.align_vectors(b, a, weights=weights)
        R = rotation.as_matrix()
        errors = np.linalg.norm(a @ R.T - b, axis=1) * focal_px
        weights = 1.0 / (1.0 + (errors / max_error_px) ** 2)
    if np.median(errors) > ROTATION_ONLY_PARALLAX * max_error_px:
        return None
    T = np.eye(4)
    T[:3, :3] = R
    sigma_rad = max(float(np.median(errors)) / 1.1774, 1e-3) / focal_px
    rotated = a @ R.T
    information = np.einsum('n,nij->ij', weights, np.eye(3) - np.einsum(
        'ni,nj->nij', rotated, rotated
    ))
    covariance = np.eye(6) * UNKNOWN_VARIANCE
    covariance[3:, 3:] = np.linalg.inv(information) * sigma_rad**2
    return T, covariance


def _planar(
    T: FloatArray,
    rays_a: FloatArray,
    rays_b: FloatArray,
    focal_px: float,
    max_error_px: float,
    seed: int,
) -> tuple[bool, bool]:
    """Tell whether one plane explains the inliers, and whether it leaves two poses."""
    options = {
        'max_reproj_error': 2.0 * max_error_px, 'max_iterations': 200, 'min_iterations': 20,
        'seed': seed,
    }
    H, info = poselib.estimate_homography(rays_a * focal_px, rays_b * focal_px, options, {})
    on_plane = np.asarray(info['inliers'], dtype=bool)
    if not np.isfinite(H).all() or on_plane.mean() < PLANAR_PART:
        return False, False
    best = int((np.abs(sampson_px(T, rays_a, rays_b, focal_px)) < max_error_px).sum())
    for other in _poses_of_plane(np.asarray(H), focal_px):
        error = np.abs(sampson_px(other, rays_a, rays_b, focal_px))
        agree = (error < max_error_px) & _in_front(other, rays_a, rays_b)
        if _differs(other, T) and int(agree.sum()) >= AMBIGUOUS_PART * best:
            return True, True
    return True, False


def _poses_of_plane(H: FloatArray, focal_px: float) -> list[FloatArray]:
    """Return the poses (4, 4) of unit length that a homography of pixels allows, up to four."""
    K = np.diag([focal_px, focal_px, 1.0])
    count, rotations, translations, _ = cv2.decomposeHomographyMat(H, K)
    poses = []
    for R, t in zip(rotations[:count], translations[:count], strict=True):
        length = float(np.linalg.norm(t))
        if length > 1e-9:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = R, t.ravel() / length
            poses.append(pose)
    return poses


def _differs(T_a: FloatArray, T_b: FloatArray) -> bool:
    """Tell whether two unit-length poses differ beyond what a wrong closure may (DESIGN.md)."""
    angle = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).magnitude()
    direction = np.arccos(np.clip(float(T_a[:3, 3] @ T_b[:3, 3]), -1.0, 1.0))
    return bool(angle > np.radians(5.0) or direction > np.radians(20.0))


def _in_front(T: FloatArray, rays_a: FloatArray, rays_b: FloatArray) -> BoolArray:
    """Tell which matches lie in front of both views (cheirality of the midpoint)."""
    a = np.column_stack([rays_a, np.ones(len(rays_a))]) @ T[:3, :3].T
    b = np.column_stack([rays_b, np.ones(len(rays_b))])
    t = T[:3, 3]
    aa, bb, ab = (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)
    at, bt = a @ t, b @ t
    determinant = aa * bb - ab * ab
    depth_a = (ab * bt - bb * at) / np.maximum(determinant, 1e-15)
    depth_b = (aa * bt - ab * at) / np.maximum(determinant, 1e-15)
    return np.asarray((depth_a > 0.0) & (depth_b > 0.0))


def _covariance(
    T: FloatArray, rays_a: FloatArray, rays_b: FloatArray, focal_px: float
) -> FloatArray:
    """Return the covariance (6, 6) of a pose up to scale from the residuals of its inliers.

    Along the direction of travel the length is a convention, not a measurement.
    """
    residuals = sampson_px(T, rays_a, rays_b, focal_px)
    sigma = max(float(np.median(np.abs(residuals))) * MAD_TO_SIGMA, 1e-3)
    t = T[:3, 3] / np.linalg.norm(T[:3, 3])
    across = np.linalg.svd(t[None])[2][1:]
    step = 1e-6
    columns = []
    for index in range(5):
        moved = T.copy()
        if index < 2:
            moved[:3, 3] = t + step * across[index]
        else:
            axis = np.zeros(3)
            axis[index - 2] = step
            moved[:3, :3] = Rotation.from_rotvec(axis).as_matrix() @ T[:3, :3]
        columns.append((sampson_px(moved, rays_a, rays_b, focal_px) - residuals) / step)
    J = np.column_stack(columns)
    weights = 1.0 / (1.0 + (residuals / (2.0 * sigma)) ** 2)
    small = np.linalg.pinv(J.T @ (weights[:, None] * J)) * sigma**2
    basis = np.zeros((6, 5))
    basis[:3, :2] = across.T
    basis[3:, 2:] = np.eye(3)
    covariance = basis @ small @ basis.T
    covariance[:3, :3] += np.outer(t, t)
    return np.asarray(covariance)
