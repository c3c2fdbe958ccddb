# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A keyframe as geometry sees it: local features, rays, depth, found once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import threading
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.loop_closure.geometry.camera_model import focal_px, is_calibrated, undistort
from netvlad_ros.loop_closure.geometry.features import FeatureExtractor, Features
from netvlad_ros.types import Camera, Float32Array, FloatArray, Frame, UInt8Array

# Depth changes more than this part of itself across a 3x3 window at the edge of an object,
# where a point's depth may be that of what lies behind.
MAX_DEPTH_STEP = 0.05


@dataclass(frozen=True)
class LocalView:
    """What verification needs of one keyframe.

    :param features: points in pixels of an image of ``camera.size_wh``, and descriptors.
    :param rays: (N, 2) undistorted, at depth 1; None if the camera is not calibrated.
    :param valid: (N,) bool, the camera model covers the point.
    :param depth_m: (N,) float64 along z, NaN where unknown; None without a depth image.
    """

    features: Features
    camera: Camera
    rays: Optional[FloatArray]
    valid: npt.NDArray[np.bool_]
    depth_m: Optional[FloatArray]
    T_odom_base: Optional[FloatArray]

    @property
    def focal_px(self) -> float:
        """Mean focal length in pixels, 0 if the camera is not calibrated."""
        return focal_px(self.camera) if self.rays is not None else 0.0


@dataclass(eq=False)
class View:
    """A keyframe's image and what belongs to it; features are found once, at the first use.

    Thread-safe. ``compact`` drops the images, so that a map can keep many views.

    :param image_rgb: (H, W, 3) uint8; None only in a compact view.
    :param T_odom_base: (4, 4) odometry at the image stamp, None without odometry.
    :param depth_m: (H, W) float32 metres registered to the image, 0 or NaN where unknown.
    """

    image_rgb: Optional[UInt8Array]
    camera: Camera = field(default_factory=Camera)
    T_odom_base: Optional[FloatArray] = None
    depth_m: Optional[Float32Array] = None
    _local: Optional[LocalView] = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def from_frame(cls, frame: Frame) -> View:
        """Return the view of a frame; nothing is copied or computed."""
        return cls(frame.image_rgb, frame.camera, frame.T_odom_base, frame.depth_m)

    def local(self, extractor: FeatureExtractor) -> Optional[LocalView]:
        """Return the features with rays and depth, found at the first call; None without image."""
        with self._lock:
            if self._local is None and self.image_rgb is not None:
                self._local = _local_view(self, self.image_rgb, extractor)
            return self._local

    def compact(self, extractor: FeatureExtractor) -> View:
        """Return a view with the features alone: about 0.5 MB, whatever the image's size."""
        return replace(
            self,
            _local=self.local(extractor), image_rgb=None, depth_m=None, _lock=threading.Lock(),
        )


def _local_view(view: View, image_rgb: UInt8Array, extractor: FeatureExtractor) -> LocalView:
    """Find features, undistort them and read their depth."""
    features = extractor.extract(image_rgb)
    camera = _scaled(view.camera, image_rgb.shape[1], image_rgb.shape[0])
    rays, valid = None, np.ones(len(features), dtype=bool)
    if is_calibrated(camera):
        rays, valid = undistort(features.points_px, camera)
    depth = None
    if view.depth_m is not None:
        depth = _depth_at(features.points_px, image_rgb.shape[:2], view.depth_m)
    return LocalView(features, camera, rays, valid, depth, view.T_odom_base)


def _scaled(camera: Camera, width: int, height: int) -> Camera:
    """Return the camera for an image of another size than its calibration is for."""
    if camera.K is None or 0 in camera.size_wh or camera.size_wh == (width, height):
        return replace(camera, size_wh=(width, height))
    scale = np.diag([width / camera.size_wh[0], height / camera.size_wh[1], 1.0])
    # Pixel centres are at integers, so the corner of the image scales, not its first pixel.
    shift = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    K = np.linalg.inv(shift) @ scale @ shift @ camera.K
    return replace(camera, K=K, size_wh=(width, height))


def _depth_at(
    points_px: Float32Array, image_hw: tuple[int, ...], depth_m: Float32Array
) -> FloatArray:
    """Return the depth (N,) of points, NaN where it is unknown or at the edge of an object."""
    scale = np.array([depth_m.shape[1] / image_hw[1], depth_m.shape[0] / image_hw[0]])
    pixels = np.round((points_px + 0.5) * scale - 0.5).astype(np.int64)
    columns = np.clip(pixels[:, :1] + np.tile([-1, 0, 1], 3), 0, depth_m.shape[1] - 1)
    rows = np.clip(pixels[:, 1:] + np.repeat([-1, 0, 1], 3), 0, depth_m.shape[0] - 1)
    window = depth_m[rows, columns].astype(np.float64)
    with np.errstate(invalid='ignore'):
        known = (np.isfinite(window) & (window > 0.0)).all(axis=1)
        flat = np.ptp(window, axis=1) <= MAX_DEPTH_STEP * window[:, 4]
    return np.where(known & flat, np.median(window, axis=1), np.nan)
