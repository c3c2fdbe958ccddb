# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as (4, 4) float64 matrices ``T_a_b``; rotations and slerp are SciPy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation, Slerp

from netvlad_ros.errors import InputError
from netvlad_ros.types import FloatArray

# Quaternions of messages are float64 products of normalised values; past this they are broken.
QUAT_NORM_TOLERANCE = 1e-2


def pose_from_xyz_quat(xyz: npt.ArrayLike, quat_xyzw: npt.ArrayLike) -> FloatArray:
    """Return T (4, 4) from a translation in metres and a quaternion in x, y, z, w order.

    :raises InputError: a value is not finite or the quaternion is not of unit length.
    """
    xyz = np.asarray(xyz, dtype=np.float64)
    quat = np.asarray(quat_xyzw, dtype=np.float64)
    if not (np.isfinite(xyz).all() and np.isfinite(quat).all()):
        raise InputError(f'pose is not finite: xyz {xyz.tolist()}, quat_xyzw {quat.tolist()}')
    norm = float(np.linalg.norm(quat))
    if abs(norm - 1.0) > QUAT_NORM_TOLERANCE:
        raise InputError(f'quaternion has length {norm:.4g}, expected 1: {quat.tolist()}')
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(quat).as_matrix()
    T[:3, 3] = xyz
    return T


def xyz_quat_from_pose(T: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return translation (3,) in metres and quaternion (4,) in x, y, z, w order with w >= 0."""
    quat = Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True)
    return T[:3, 3].copy(), quat


def inverse(T: FloatArray) -> FloatArray:
    """Return the inverse of a rigid transform."""
    out = np.eye(4)
    out[:3, :3] = T[:3, :3].T
    out[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return out


def rotation_angle_deg(T_a: FloatArray, T_b: FloatArray) -> float:
    """Return the angle of the rotation between two poses in degrees, in [0, 180]."""
    relative = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3])
    return float(np.degrees(relative.magnitude()))


def distance_m(T_a: FloatArray, T_b: FloatArray) -> float:
    """Return the distance between the origins of two poses in metres."""
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3]))


def interpolate(T_a: FloatArray, T_b: FloatArray, fraction: float) -> FloatArray:
    """Return the pose at ``fraction`` in [0, 1] between two: linear position, slerp rotation."""
    slerp = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([T_a[:3, :3], T_b[:3, :3]])))
    out = np.eye(4)
    out[:3, :3] = slerp(fraction).as_matrix()
    out[:3, 3] = (1.0 - fraction) * T_a[:3, 3] + fraction * T_b[:3, 3]
    return out


def tum_row(stamp_ns: int, T: FloatArray) -> str:
    """Return a pose as a row of a TUM trajectory: seconds, position, quaternion x y z w."""
    seconds, rest_ns = divmod(abs(stamp_ns), 1_000_000_000)
    xyz, quat_xyzw = xyz_quat_from_pose(T)
    values = ' '.join(f'{value:.9g}' for value in (*xyz, *quat_xyzw))
    return f'{"-" if stamp_ns < 0 else ""}{seconds}.{rest_ns:09d} {values}\n'
