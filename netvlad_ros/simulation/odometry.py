# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Wheel odometry that drifts by a given share of the distance travelled.

The wheels' scale is a little wrong, the heading drifts steadily and wanders; both noises act on
each increment, so a standing robot does not drift. The strength is set so that the drift, as
``drift_percent`` measures it, is the one asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netvlad_ros.types import FloatArray

SEGMENTS_M = (10.0, 20.0, 40.0, 80.0)


def increments(xy_yaw: FloatArray) -> FloatArray:
    """Return (N - 1, 3): forward and left metres and the turn in radians, in the older pose."""
    delta = np.diff(xy_yaw, axis=0)
    c, s = np.cos(xy_yaw[:-1, 2]), np.sin(xy_yaw[:-1, 2])
    forward = c * delta[:, 0] + s * delta[:, 1]
    left = -s * delta[:, 0] + c * delta[:, 1]
    return np.stack([forward, left, delta[:, 2]], axis=1)


def integrate(steps: FloatArray) -> FloatArray:
    """Return (N + 1, 3) poses x, y, yaw from the origin along increments."""
    yaw = np.concatenate([[0.0], np.cumsum(steps[:, 2])])
    c, s = np.cos(yaw[:-1]), np.sin(yaw[:-1])
    x = np.concatenate([[0.0], np.cumsum(c * steps[:, 0] - s * steps[:, 1])])
    y = np.concatenate([[0.0], np.cumsum(s * steps[:, 0] + c * steps[:, 1])])
    return np.stack([x, y, yaw], axis=1)


def drift_percent(true_xy_yaw: FloatArray, odom_xy_yaw: FloatArray) -> float:
    """Return the mean translation error over segments, in percent of their length.

    The measure is that of the KITTI odometry benchmark, with ``SEGMENTS_M`` for lengths. 0.0 if
    the drive is shorter than the shortest segment.
    """
    travelled = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(true_xy_yaw[:, :2], axis=0), axis=1))]
    )
    errors: list[float] = []
    for segment in SEGMENTS_M:
        starts = np.arange(0.0, travelled[-1] - segment, 1.0)
        first = np.searchsorted(travelled, starts).astype(np.int64)
        last = np.searchsorted(travelled, starts + segment).astype(np.int64)
        ends = [_relative_xy(poses, first, last) for poses in (true_xy_yaw, odom_xy_yaw)]
        errors += (np.linalg.norm(ends[0] - ends[1], axis=1) / segment).tolist()
    return 100.0 * float(np.mean(errors)) if errors else 0.0


def _relative_xy(
    poses: FloatArray, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> FloatArray:
    delta = poses[last, :2] - poses[first, :2]
    c, s = np.cos(poses[first, 2]), np.sin(poses[first, 2])
    return np.stack([c * delta[:, 0] + s * delta[:, 1], -s * delta[:, 0] + c * delta[:, 1]], 1)


def drifting(true_xy_yaw: FloatArray, drift: float, seed: int) -> FloatArray:
    """Return (N, 3) odometry x, y, yaw from the origin for true poses.

    :param drift: wanted ``drift_percent``; 0 gives the true motion.
    """
    rng = np.random.default_rng((seed, 404))
    true_steps = increments(true_xy_yaw)
    moved = np.hypot(true_steps[:, 0], true_steps[:, 1])
    root = np.sqrt(moved)
    scale = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.8)
    bend = rng.choice([-1.0, 1.0]) * rng.uniform(0.02, 0.06)
    wander = rng.standard_normal(len(moved))
    slip = rng.standard_normal(len(moved))
    turn_scale = rng.uniform(-0.3, 0.3)

    def at(strength: float) -> FloatArray:
        steps = true_steps.copy()
        steps[:, 0] *= 1.0 + strength * scale
        steps[:, 0] += strength * 0.2 * slip * root * 0.1
        steps[:, 2] *= 1.0 + strength * turn_scale
        steps[:, 2] += strength * (bend * moved + 0.15 * wander * root)
        return integrate(steps)

    strength = 0.01 * drift
    for _ in range(12):
        measured = drift_percent(true_xy_yaw, at(strength))
        if measured <= 0.0:
            break
        strength *= drift / measured
    return at(strength)
