# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From pixels of a distorted image to rays: plumb_bob, rational_polynomial and equidistant."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import InputError
from netvlad_ros.types import Camera, FloatArray

BoolArray = npt.NDArray[np.bool_]

DISTORTION_MODELS = ('', 'plumb_bob', 'rational_polynomial', 'equidistant')
# A pixel whose ray does not project back onto it lies outside the model's valid field of view.
MAX_ROUND_TRIP_PX = 0.5


def is_calibrated(camera: Camera) -> bool:
    """Tell whether the camera has usable intrinsics; drivers send zeros where there are none."""
    return camera.K is not None and camera.K[0, 0] > 0.0 and camera.K[1, 1] > 0.0


def focal_px(camera: Camera) -> float:
    """Return the mean focal length in pixels of an image of ``camera.size_wh``."""
    assert camera.K is not None
    return float(0.5 * (camera.K[0, 0] + camera.K[1, 1]))


def undistort(points_px: npt.ArrayLike, camera: Camera) -> tuple[FloatArray, BoolArray]:
    """Return points of the image plane at depth 1 and which of them the model covers.

    :param points_px: (N, 2) pixels of an image of ``camera.size_wh``.
    :returns: (N, 2) float64 x / z and y / z of the rays, (N,) bool valid.
    :raises InputError: the camera has no intrinsics or an unknown distortion model.
    """
    points = np.ascontiguousarray(points_px, dtype=np.float64).reshape(-1, 2)
    K, distortion = check_camera(camera)
    if not len(points):
        return points, np.zeros(0, dtype=bool)
    if camera.distortion_model == 'equidistant':
        rays = cv2.fisheye.undistortPoints(points[:, None], K, distortion)[:, 0]
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-10)
        rays = cv2.undistortPoints(points[:, None], K, distortion, criteria=criteria)[:, 0]
    rays = np.asarray(rays, dtype=np.float64)
    round_trip = project(np.column_stack([rays, np.ones(len(rays))]), camera)
    with np.errstate(invalid='ignore'):
        valid = np.linalg.norm(round_trip - points, axis=1) < MAX_ROUND_TRIP_PX
    return rays, valid


def project(points_xyz: npt.ArrayLike, camera: Camera) -> FloatArray:
    """Return the pixels (N, 2) of points (N, 3) in the optical frame, distortion included.

    :raises InputError: the camera has no intrinsics or an unknown distortion model.
    """
    points = np.ascontiguousarray(points_xyz, dtype=np.float64).reshape(-1, 1, 3)
    K, distortion = check_camera(camera)
    zero = np.zeros(3)
    if camera.distortion_model == 'equidistant':
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, K, distortion)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, K, distortion)
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 2)


def check_camera(camera: Camera) -> tuple[FloatArray, FloatArray]:
    """Return intrinsics and distortion coefficients as OpenCV takes them.

    :raises InputError: the camera has no intrinsics or an unknown distortion model.
    """
    if not is_calibrated(camera):
        raise InputError(f'camera {camera.name!r} has no intrinsics; publish its CameraInfo')
    if camera.distortion_model not in DISTORTION_MODELS:
        raise InputError(
            f'camera {camera.name!r} has distortion model {camera.distortion_model!r}, '
            f'known: {", ".join(name for name in DISTORTION_MODELS if name)}'
        )
    length = 4 if camera.distortion_model == 'equidistant' else 8
    distortion = np.zeros(length)
    given = np.asarray(camera.distortion, dtype=np.float64).ravel()
    if camera.distortion_model:
        if len(given) > length and np.any(given[length:]):
            raise InputError(
                f'camera {camera.name!r} has {len(given)} coefficients of '
                f'{camera.distortion_model}, at most {length} are known'
            )
        distortion[: min(length, len(given))] = given[:length]
    return np.asarray(camera.K, dtype=np.float64), distortion
