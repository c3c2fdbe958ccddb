# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration messages to cameras, without ROS: the node and the bag reader share this."""

from __future__ import annotations

from typing import Any

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.loop_closure.geometry.camera_model import check_camera, is_calibrated
from netvlad_ros.types import Camera


def camera_from_message(message: Any, is_rectified: bool = False) -> Camera:
    """Return the camera; K of zeros means uncalibrated, as sensor_msgs/CameraInfo defines it.

    The message's matrices are of the full sensor; the camera's are of the images, which may be a
    part of it (``roi``) and reduced (``binning``).

    :param message: anything with the fields of sensor_msgs/CameraInfo.
    :param is_rectified: the images are, so the camera is the pinhole of P, without distortion.
    :raises InputError: the calibration is not finite, its focal length not positive, or its
        distortion model not known.
    """
    matrix = np.reshape(message.p, (3, 4))[:, :3] if is_rectified else message.k
    K = np.array(matrix, dtype=np.float64).reshape(3, 3)
    distortion = np.asarray([] if is_rectified else message.d, dtype=np.float64)
    if not (np.isfinite(K).all() and np.isfinite(distortion).all()):
        raise InputError(f'camera_info is not finite: k {K.tolist()}, d {distortion.tolist()}')
    if K[0, 0] < 0 or K[1, 1] < 0:
        raise InputError(f'camera_info has focal lengths {K[0, 0]}, {K[1, 1]}, must be positive')
    roi, binning = message.roi, np.maximum([message.binning_x, message.binning_y], 1)
    size_wh = np.array([roi.width or message.width, roi.height or message.height]) // binning
    K[:2, 2] -= roi.x_offset, roi.y_offset
    K[:2] /= binning[:, None]
    camera = Camera(
        name=message.header.frame_id or 'camera',
        frame_id=message.header.frame_id or 'camera_optical',
        size_wh=(int(size_wh[0]), int(size_wh[1])),
        K=K if K[0, 0] > 0 else None,
        distortion_model='' if is_rectified else str(message.distortion_model),
        distortion=distortion,
    )
    if is_calibrated(camera):
        check_camera(camera)
    return camera
