# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One small bundle adjustment: two views, the neighbours of both, and the points they share.

Odometry between a view and its neighbours is the only thing with a length. Adjusting its motions,
the points and the pose between the views together lets every match say what it can, and the
covariance knows that an error in one motion moves all the points that it helped to place.

The points lie on the rays of the first view, at inverse depths that are estimated: their error is
near normal, and a point at infinity is not special (Civera, Davison and Montiel 2008). The rays
themselves are taken as exact; their noise shows in the residuals of the other views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.loop_closure.geometry.covariance import perturbed, pose_error, skew
from netvlad_ros.loop_closure.geometry.landmarks import Sighting
from netvlad_ros.loop_closure.geometry.pnp import INLIER_SIGMAS
from netvlad_ros.types import FloatArray

IntArray = npt.NDArray[np.int64]

DEPTH_STEPS = 3  # before the poses move
MAX_STEPS = 20
# Of the cost, in units of noise: what is left to gain is far less than one deviation.
CONVERGED = 0.01
# Distance of two views over the depth of a point. Nothing is recognised from so far aside as the
# upper bound says, and nothing lies behind infinity: such a point is a wrong match, and one alone,
# supposedly near, would fix the whole translation.
MAX_PARALLAX, MIN_PARALLAX = 0.7, -0.1
# Inverse squared deviation of inverse depths, in m^2, before anything is seen. Small: all points
# together would else be pulled away.
NEARNESS = 1e-4
MIN_DEPTH = 0.05  # over that in the first view; nearer points project to nothing
# How far odometry between neighbours may be off sideways, as part of the way, and in rotation.
# The matches know both better: this only holds what they leave open.
ODOMETRY_SIDEWAYS = 0.05
ODOMETRY_TURN_RAD = 0.01
# Part of the noise that all points share (lens model, light, timing), so that it neither averages
# out nor shows in the residuals. Measured on the rendered drive, where it makes the mean NEES
# that of an honest covariance.
SHARED_NOISE = 0.026


@dataclass(frozen=True)
class Adjusted:
    """The pose of the first view in the second with its covariance.

    :param T: (4, 4) maps points of the first view into the second.
    :param covariance: (6, 6) in the convention of ``covariance.py``.
    :param agree: (N,) bool, points that the second view sees where they should be.
    """

    T: FloatArray
    covariance: FloatArray
    agree: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Observations:
    """Who sees which point where: camera 0 is the second view, the others are neighbours.

    :param camera: (M,) numbers; point (M,) likewise.
    :param via_second: (M,) bool, the camera's pose is relative to the second view.
    :param rays: (M, 2) undistorted, at depth 1.
    :param of_point: (N, M) float64, 1 where a point is the observation's: it sums over them.
    """

    camera: IntArray
    point: IntArray
    via_second: npt.NDArray[np.bool_]
    rays: FloatArray
    of_point: FloatArray


def adjust(
    T: FloatArray,
    rays_first: FloatArray,
    rays_second: FloatArray,
    of_first: Sequence[Sighting],
    of_second: Sequence[Sighting],
    focal_px: float,
    max_error_px: float,
    odometry_noise: float,
) -> Optional[Adjusted]:
    """Return the pose that fits all views best, None if they do not determine it.

    :param T: (4, 4) first guess; it maps points of the first view into the second.
    :param rays_first: (N, 2) of the points, undistorted, at depth 1; rays_second likewise.
    :param of_first: what the neighbours of the first view see; of_second likewise.
    :param odometry_noise: deviation of the length of odometry, as a part of it; the same for all
        neighbours, so that it scales the whole.
    """
    count = len(rays_first)
    sightings = [*of_first, *of_second]
    seen = _observations(rays_second, sightings, len(of_first))
    poses = np.stack([T, *(sighting.T_neighbour_centre for sighting in sightings)])
    priors = [_odometry_information(sighting.T_odom, odometry_noise) for sighting in sightings]
    directions = np.column_stack([rays_first, np.ones(count)])[seen.point]
    inverse_depth, plausible = np.zeros(count), np.ones(count, dtype=bool)
    sigma = 0.5 * max_error_px / focal_px
    size = 6 * len(poses)
    for step in range(DEPTH_STEPS + MAX_STEPS):
        shift = _shift(seen, poses)
        if step >= DEPTH_STEPS:
            parallax = inverse_depth[seen.point] * np.linalg.norm(shift, axis=1)
            wrong = (parallax > MAX_PARALLAX) | (parallax < MIN_PARALLAX)
            plausible &= seen.of_point @ wrong == 0.0
        residual, J, by_depth = _project(seen, poses, shift, directions, inverse_depth[seen.point])
        norms = np.linalg.norm(residual, axis=1) / sigma
        weights = plausible[seen.point] / (1.0 + (norms / 2.0) ** 2)
        root = np.sqrt(weights)[:, None] / sigma
        residual, by_depth, J = root * residual, root * by_depth, root[:, :, None] * J
        H_depth = seen.of_point @ (by_depth**2).sum(axis=1) + NEARNESS
        g_depth = seen.of_point @ (by_depth * residual).sum(axis=1) + NEARNESS * inverse_depth
        if step < DEPTH_STEPS:
            inverse_depth = inverse_depth - g_depth / H_depth
            continue
        # The depths have one equation each: they are eliminated (Schur complement).
        cross = seen.of_point @ np.einsum('nik,ni->nk', J, by_depth)
        flat = J.reshape(-1, size)
        freedom = max(2.0 * float(weights.sum()) - count - size, 1.0)
        scale = float(np.clip(weights @ norms**2 / freedom, 0.05**2, 1.5**2))
        information = (flat.T @ flat - cross.T @ (cross / H_depth[:, None])) / scale
        gradient = (flat.T @ residual.ravel() - cross.T @ (g_depth / H_depth)) / scale
        prior = np.zeros((size, size))
        for number, (sighting, odometry) in enumerate(zip(sightings, priors, strict=True), 1):
            own = slice(6 * number, 6 * number + 6)
            prior[own, own] = odometry
            gradient[own] += odometry @ pose_error(sighting.T_odom, poses[number])
        if not np.isfinite(gradient).all():
            return None
        try:
            delta = -np.linalg.solve(information + prior, gradient)
        except np.linalg.LinAlgError:
            return None
        moves = delta.reshape(-1, 6)
        poses = np.stack([perturbed(pose, move) for pose, move in zip(poses, moves, strict=True)])
        inverse_depth = inverse_depth - (g_depth + cross @ delta) / H_depth
        if -gradient @ delta < CONVERGED:
            break
    else:
        return None
    shared = SHARED_NOISE**2 * float(weights.sum()) / scale
    covariance = np.linalg.inv(information / (1.0 + shared) + prior)[:6, :6]
    t = poses[0, :3, 3]
    covariance[:3, :3] += odometry_noise**2 * np.outer(t, t)
    return Adjusted(poses[0], 0.5 * (covariance + covariance.T), norms[:count] < INLIER_SIGMAS)


def _observations(
    rays_second: FloatArray, sightings: Sequence[Sighting], count_of_first: int
) -> _Observations:
    """Return what the second view sees of all points, then what the neighbours see."""
    count = len(rays_second)
    rows = [np.arange(count), *(sighting.rows for sighting in sightings)]
    camera = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    point = np.concatenate(rows)
    rays = np.concatenate([rays_second, *(sighting.rays for sighting in sightings)])
    of_point = np.zeros((count, len(point)))
    of_point[point, np.arange(len(point))] = 1.0
    return _Observations(camera, point, camera > count_of_first, rays, of_point)


def _shift(seen: _Observations, poses: FloatArray) -> FloatArray:
    """Return where the first view's centre is in each observation's camera, (M, 3)."""
    R, t = poses[:, :3, :3], poses[:, :3, 3]
    through_second = (R @ poses[0, :3, 3])[seen.camera]
    return np.asarray(t[seen.camera] + seen.via_second[:, None] * through_second)


def _project(
    seen: _Observations, poses: FloatArray, shift: FloatArray, directions: FloatArray,
    inverse_depth: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return errors (M, 2) at depth 1 and their slopes by the poses (M, 2, 6 K) and by depth."""
    R, via, rho = poses[seen.camera, :3, :3], seen.via_second, inverse_depth[:, None]
    # A neighbour of the second view sees what the second view sees, moved on.
    turned = directions @ poses[0, :3, :3].T
    start = np.where(via[:, None], turned + rho * poses[0, :3, 3], directions)
    rotated = np.einsum('nij,nj->ni', R, start)
    x, y, z = (rotated + rho * poses[seen.camera, :3, 3]).T
    z = np.maximum(z, MIN_DEPTH)
    projection = np.zeros((len(z), 2, 3))
    projection[:, 0, 0] = projection[:, 1, 1] = 1.0 / z
    projection[:, 0, 2], projection[:, 1, 2] = -x / z**2, -y / z**2
    J = np.zeros((len(z), 2, len(poses), 6))
    J[np.arange(len(z)), :, seen.camera] = projection @ _slope(rotated, inverse_depth)
    J[via, :, 0] = projection[via] @ R[via] @ _slope(turned[via], inverse_depth[via])
    residual = np.column_stack([x / z, y / z]) - seen.rays
    return residual, J.reshape(len(z), 2, -1), np.einsum('nij,nj->ni', projection, shift)


def _slope(rotated: FloatArray, inverse_depth: FloatArray) -> FloatArray:
    """Return the slope (M, 3, 6) of R x + t / depth by (d, w) of the pose."""
    return np.concatenate([inverse_depth[:, None, None] * np.eye(3), -skew(rotated)], axis=2)


def _odometry_information(T_odom: FloatArray, odometry_noise: float) -> FloatArray:
    """Return the inverse covariance (6, 6) of odometry between neighbours."""
    t = T_odom[:3, 3]
    length = float(np.linalg.norm(t))
    along = np.outer(t, t) / length**2
    out = np.zeros((6, 6))
    out[:3, :3] = along / max(odometry_noise * length, 1e-4) ** 2
    out[:3, :3] += (np.eye(3) - along) / (ODOMETRY_SIDEWAYS * length) ** 2
    out[3:, 3:] = np.eye(3) / ODOMETRY_TURN_RAD**2
    return out
