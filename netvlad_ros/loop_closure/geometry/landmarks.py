# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Landmarks for one camera and odometry: points seen again from neighbouring keyframes.

Odometry gives the length of the baseline, and with it the scale that a single camera lacks. The
matches themselves know rotation and direction better than wheels do, and replace them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt
import poselib
from scipy.spatial.transform import Rotation

from netvlad_ros.loop_closure.geometry.relative_pose import sampson_px
from netvlad_ros.types import FloatArray

# A smaller parallax leaves the depth of a point to the noise.
MIN_PARALLAX_DEG = 1.0
# A shorter baseline is mostly odometry noise.
MIN_BASELINE_M = 0.1
MIN_MATCHES = 15
# Wheels that slip more than this between keyframes give no length either.
MAX_ODOMETRY_TURN_RAD = 0.1
MIN_ODOMETRY_COSINE = 0.9
REFINE_STEPS = 3


@dataclass(frozen=True)
class Sighting:
    """Points of the central view as one neighbour sees them.

    :param T_odom: (4, 4) maps the central view's frame into the neighbour's, by odometry.
    :param T_neighbour_centre: (4, 4) the same, refined by the matches.
    :param rows: (M,) rows of the points in the central view.
    :param rays: (M, 2) where the neighbour sees them, undistorted, at depth 1.
    """

    T_odom: FloatArray
    T_neighbour_centre: FloatArray
    rows: npt.NDArray[np.int64]
    rays: FloatArray


def refined_motion(
    T_odom: FloatArray,
    rays_a: FloatArray,
    rays_b: FloatArray,
    focal_px: float,
    max_error_px: float,
) -> Optional[FloatArray]:
    """Return the motion from view a to view b: the length of odometry, the rest from matches.

    :param T_odom: (4, 4) maps view a's frame into view b's, by odometry.
    :param rays_a: (M, 2) undistorted, at depth 1; rays_b likewise, some of them wrong.
    :returns: None where the baseline is too short, or the matches deny the odometry.
    """
    length = float(np.linalg.norm(T_odom[:3, 3]))
    if length < MIN_BASELINE_M or len(rays_a) < MIN_MATCHES:
        return None
    pose = poselib.CameraPose()
    pose.R, pose.t = T_odom[:3, :3], T_odom[:3, 3] / length
    camera = {'model': 'SIMPLE_PINHOLE', 'width': 0, 'height': 0, 'params': [focal_px, 0.0, 0.0]}
    options = {'loss_type': 'CAUCHY', 'loss_scale': 0.5 * max_error_px}
    refined, _ = poselib.refine_relative_pose(
        rays_a * focal_px, rays_b * focal_px, pose, camera, camera, options
    )
    T = np.eye(4)
    T[:3, :] = refined.Rt
    T[:3, 3] *= length / max(float(np.linalg.norm(T[:3, 3])), 1e-12)
    turned = Rotation.from_matrix(T[:3, :3].T @ T_odom[:3, :3]).magnitude()
    cosine = float(T[:3, 3] @ T_odom[:3, 3]) / length**2
    if not np.isfinite(T).all() or turned > MAX_ODOMETRY_TURN_RAD or cosine < MIN_ODOMETRY_COSINE:
        return None
    return T


def sighting(
    T_odom: FloatArray,
    rows: npt.NDArray[np.int64],
    rays: FloatArray,
    neighbour_rays: FloatArray,
    focal_px: float,
    max_error_px: float,
) -> Optional[Sighting]:
    """Return the matches with a neighbour that fit one motion; None where there is none.

    :param rows: (M,) of the matched points in the central view.
    :param rays: (M, 2) of them in the central view; neighbour_rays likewise in the neighbour.
    """
    motion = refined_motion(T_odom, rays, neighbour_rays, focal_px, max_error_px)
    if motion is None:
        return None
    fits = np.abs(sampson_px(motion, rays, neighbour_rays, focal_px)) <= max_error_px
    return Sighting(T_odom, motion, rows[fits], neighbour_rays[fits])


def triangulate(
    rays: FloatArray,
    sightings: list[Sighting],
    focal_px: float,
    max_error_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the depth (N,) along z of the points of the central view and its deviation (N,).

    Depth is NaN where no neighbour saw the point, where the parallax is too small, or where the
    neighbours disagree. The inverse depth is estimated, whose error is near normal.

    :param rays: (N, 2) of the central view, undistorted, at depth 1.
    """
    count = len(rays)
    inverse_depth = np.zeros(count)
    information = np.zeros(count)
    for _ in range(REFINE_STEPS):
        information = np.zeros(count)
        gradient = np.zeros(count)
        for seen in sightings:
            rows = seen.rows
            residual, slope = _inverse_depth_error(
                rays[rows], seen.rays, seen.T_neighbour_centre, inverse_depth[rows]
            )
            np.add.at(information, rows, (slope * slope).sum(axis=1))
            np.add.at(gradient, rows, (slope * residual).sum(axis=1))
        known = information > 0.0
        inverse_depth[known] -= gradient[known] / information[known]
    worst = np.zeros(count)
    for seen in sightings:
        residual, _ = _inverse_depth_error(
            rays[seen.rows], seen.rays, seen.T_neighbour_centre, inverse_depth[seen.rows]
        )
        np.maximum.at(worst, seen.rows, focal_px * np.linalg.norm(residual, axis=1))
    sigma_ray = 0.5 * max_error_px / focal_px
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = 1.0 / inverse_depth
        sigma = sigma_ray / np.sqrt(information) * depth**2
        # Information is the squared shift in the image per inverse depth: this is its parallax.
        parallax_rad = np.sqrt(information) * inverse_depth
        good = (worst <= max_error_px) & (parallax_rad >= np.radians(MIN_PARALLAX_DEG))
    good &= (information > 0.0) & (inverse_depth > 0.0)
    return np.where(good, depth, np.nan), np.where(good, sigma, np.nan)


def _inverse_depth_error(
    rays: FloatArray, seen: FloatArray, T: FloatArray, inverse_depth: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return errors (M, 2) at depth 1 in the neighbour, and their slopes by inverse depth."""
    rotated = np.column_stack([rays, np.ones(len(rays))]) @ T[:3, :3].T
    point = rotated + inverse_depth[:, None] * T[:3, 3]
    z = np.where(np.abs(point[:, 2:]) < 1e-6, 1e-6, point[:, 2:])
    predicted = point[:, :2] / z
    slope = (T[:2, 3] - predicted * T[2, 3]) / z
    return predicted - seen, slope
