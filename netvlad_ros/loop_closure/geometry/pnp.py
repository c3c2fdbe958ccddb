# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pose of a camera from points of known position: METRIC.

PoseLib finds the pose and its inliers; a refinement that knows how uncertain each point is then
weighs them and gives the covariance. Points from depth or from triangulation are uncertain along
their ray, so a reprojection error alone would trust far points too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt
import poselib

from netvlad_ros.loop_closure.geometry.covariance import perturbed, skew
from netvlad_ros.types import FloatArray

BoolArray = npt.NDArray[np.bool_]

MIN_POINTS = 6
MAX_ITERATIONS = 500
REFINE_STEPS = 10
# Points nearer than this to the plane of the camera project to nothing.
MIN_DEPTH_M = 0.05
# Holds 99 percent of a normal variable of two dimensions.
INLIER_SIGMAS = 3.03


@dataclass(frozen=True)
class MeasuredPose:
    """A pose with its evidence.

    :param T: (4, 4) maps points of the first frame into the second.
    :param covariance: (6, 6) in the convention of ``covariance.py``.
    :param inliers: (N,) bool of the matches given.
    """

    T: FloatArray
    covariance: FloatArray
    inliers: BoolArray


def absolute_pose(
    points_xyz: FloatArray,
    points_covariance: FloatArray,
    rays: FloatArray,
    focal_px: float,
    max_error_px: float,
    shared_noise: float = 0.0,
    seed: int = 0,
) -> Optional[MeasuredPose]:
    """Return the pose of points in the frame of the camera that sees them, None if there is none.

    :param points_xyz: (N, 3) metres in their own frame.
    :param points_covariance: (N, 3, 3) m^2 of them.
    :param rays: (N, 2) where the camera sees them, undistorted, at depth 1.
    :param focal_px: makes pixels of ray errors.
    :param shared_noise: part of the noise of a point that all points share.
    """
    if len(points_xyz) < MIN_POINTS:
        return None
    camera = {'model': 'SIMPLE_PINHOLE', 'width': 0, 'height': 0, 'params': [focal_px, 0.0, 0.0]}
    options = {
        'max_reproj_error': max_error_px,
        'max_iterations': MAX_ITERATIONS,
        'min_iterations': 50,
        'seed': seed,
    }
    pose, info = poselib.estimate_absolute_pose(rays * focal_px, points_xyz, camera, options, {})
    T = np.eye(4)
    T[:3, :] = pose.Rt
    if not np.isfinite(T).all() or int(info['num_inliers']) < MIN_POINTS:
        return None
    return refine(
        T, points_xyz, points_covariance, rays, focal_px, max_error_px, shared_noise
    )


def refine(
    T: FloatArray,
    points_xyz: FloatArray,
    points_covariance: FloatArray,
    rays: FloatArray,
    focal_px: float,
    max_error_px: float,
    shared_noise: float = 0.0,
) -> Optional[MeasuredPose]:
    """Refine a pose by weighted, robust least squares; None if too few points agree with it.

    The weight of a point is the inverse of pixel noise plus the point's own uncertainty seen in
    the image. The covariance is that of the least squares, scaled by what the residuals of the
    inliers show, so that a noisier camera or depth than assumed widens it.
    """
    sigma_px = max_error_px / 2.0
    inliers = np.zeros(len(rays), dtype=bool)
    information = np.eye(6)
    scale = 1.0
    for step in range(REFINE_STEPS):
        residuals, jacobian, whitening = _linearise(
            T, points_xyz, points_covariance, rays, focal_px, sigma_px
        )
        white = np.einsum('nij,nj->ni', whitening, residuals)
        norms = np.linalg.norm(white, axis=1)
        in_front = (points_xyz @ T[:3, :3].T + T[:3, 3])[:, 2] > MIN_DEPTH_M
        inliers = in_front & (norms < INLIER_SIGMAS)
        if int(inliers.sum()) < MIN_POINTS:
            return None
        # The median length of a standard normal variable of two dimensions is 1.1774.
        scale = float(np.clip(np.median(norms[inliers]) / 1.1774, 0.05, 1.5))
        weights = 1.0 / (1.0 + (norms[inliers] / (2.0 * scale)) ** 2)
        J = np.einsum('nij,njk->nik', whitening[inliers], jacobian[inliers])
        information = np.einsum('n,nik,nil->kl', weights, J, J)
        gradient = np.einsum('n,nik,ni->k', weights, J, white[inliers])
        if np.linalg.cond(information) > 1e14:
            return None
        delta = -np.linalg.solve(information, gradient)
        T = perturbed(T, delta)
        if float(np.abs(delta).max()) < 1e-8 and step > 1:
            break
    shared = shared_noise**2 * float(weights.sum())
    covariance = np.linalg.inv(information) * (scale**2 + shared)
    return MeasuredPose(T, 0.5 * (covariance + covariance.T), inliers)


def _linearise(
    T: FloatArray,
    points_xyz: FloatArray,
    points_covariance: FloatArray,
    rays: FloatArray,
    focal_px: float,
    sigma_px: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return residuals (N, 2) px, their Jacobians (N, 2, 6) and whitening matrices (N, 2, 2)."""
    rotated = points_xyz @ T[:3, :3].T
    seen = rotated + T[:3, 3]
    z = np.maximum(seen[:, 2], MIN_DEPTH_M)
    residuals = focal_px * (seen[:, :2] / z[:, None] - rays)
    projection = np.zeros((len(z), 2, 3))
    projection[:, 0, 0] = projection[:, 1, 1] = focal_px / z
    projection[:, :, 2] = -focal_px * seen[:, :2] / z[:, None] ** 2
    jacobian = np.concatenate([projection, -projection @ skew(rotated)], axis=2)
    through = projection @ T[:3, :3]
    noise = through @ points_covariance @ through.transpose(0, 2, 1)
    noise[:, 0, 0] += sigma_px**2
    noise[:, 1, 1] += sigma_px**2
    whitening = np.linalg.inv(np.linalg.cholesky(noise))
    return residuals, jacobian, whitening


def back_project(
    rays: FloatArray,
    depth_m: FloatArray,
    focal_px: float,
    sigma_px: float,
    sigma_depth: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return points (N, 3) and covariances (N, 3, 3) from rays with depth along z.

    :param sigma_depth: (N,) standard deviation of the depth in metres.
    """
    directions = np.column_stack([rays, np.ones(len(rays))])
    points = directions * depth_m[:, None]
    covariance = sigma_depth[:, None, None] ** 2 * np.einsum(
        'ni,nj->nij', directions, directions
    )
    across = (depth_m * sigma_px / focal_px) ** 2
    covariance[:, 0, 0] += across
    covariance[:, 1, 1] += across
    return points, covariance


