# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot's camera: an ideal pinhole without distortion, looking ahead and slightly up."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from netvlad_ros.types import Camera, FloatArray

BASE_FRAME = 'base_link'
OPTICAL_FRAME = 'camera_optical'

# Axes of an optical frame (x right, y down, z forward) in a body frame (x forward, y left, z up);
# REP-103.
R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def mount(x_m: float, z_m: float, pitch_up_deg: float) -> FloatArray:
    """Return T_base_camera of an optical frame in the robot's base."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('y', -pitch_up_deg, degrees=True).as_matrix() @ R_BODY_OPTICAL
    T[:3, 3] = [x_m, 0.0, z_m]
    return T


def make_camera(width: int = 640, height: int = 480, fov_deg: float = 80.0) -> Camera:
    """Return the camera of the drives.

    :param fov_deg: horizontal field of view.
    """
    focal = width / 2 / math.tan(math.radians(fov_deg) / 2)
    # Pixel (0, 0) is the centre of the first pixel, so the axis meets the middle at (w-1)/2.
    K = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return Camera(
        name=OPTICAL_FRAME, frame_id=OPTICAL_FRAME, size_wh=(width, height), K=K,
        distortion_model='plumb_bob', distortion=np.zeros(5),
        T_base_camera=mount(0.2, 0.9, 5.0),
    )
