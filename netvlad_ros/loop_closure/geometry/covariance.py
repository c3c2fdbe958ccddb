# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses with covariance: the convention, and how it moves through an inverse.

The covariance is that of geometry_msgs/PoseWithCovariance, (x, y, z, rotation about the fixed
axes X, Y, Z of the parent frame): the true pose is ``R = exp(w) R_hat, t = t_hat + d`` with
(d, w) of zero mean and this covariance.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from netvlad_ros.geometry import inverse
from netvlad_ros.types import FloatArray

# 1.4826 makes the median of absolute deviations the standard deviation of a normal variable.
MAD_TO_SIGMA = 1.4826


def skew(vectors: FloatArray) -> FloatArray:
    """Return the matrices (..., 3, 3) of the cross product with vectors (..., 3)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def perturbed(T: FloatArray, delta: FloatArray) -> FloatArray:
    """Return the pose moved by (d, w) (6,) in the convention of this module."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(delta[3:]).as_matrix() @ T[:3, :3]
    out[:3, 3] = T[:3, 3] + delta[:3]
    return out


def pose_error(T_estimate: FloatArray, T_true: FloatArray) -> FloatArray:
    """Return (d, w) (6,) that takes the estimate to the truth."""
    w = Rotation.from_matrix(T_true[:3, :3] @ T_estimate[:3, :3].T).as_rotvec()
    return np.concatenate([T_true[:3, 3] - T_estimate[:3, 3], w])


def inverse_covariance(T: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the inverse of a pose and the covariance (6, 6) of that inverse."""
    R = T[:3, :3]
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = -R.T
    jacobian[:3, 3:] = -R.T @ skew(T[:3, 3])
    jacobian[3:, 3:] = -R.T
    return inverse(T), jacobian @ covariance @ jacobian.T
