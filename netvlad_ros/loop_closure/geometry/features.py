# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Local features of one image: RootSIFT by default, ORB for small machines.

Another detector joins by implementing ``FeatureExtractor``: unit descriptors whose inner product
says how alike two points look are all that matching asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from netvlad_ros.config import VerificationConfig
from netvlad_ros.types import Float32Array, FloatArray, UInt8Array

# Weak corners are what a blank corridor has: OpenCV's 0.04 leaves a third of the points there.
SIFT_CONTRAST_THRESHOLD = 0.01
# OpenCV doubles the image as if pixels had their centres at corners; ``enable_precise_upscale``,
# which repairs that, is younger than the OpenCV of ROS 2 Jazzy.
SIFT_SHIFT_PX = 0.25
ORB_SCALE = 1.2


@dataclass(frozen=True)
class Features:
    """Points and what they look like.

    :param points_px: (N, 2) float32 pixels of the image as given, whatever it was resized to.
    :param descriptors: (N, D) float32 unit rows.
    :param step_px: one pixel of the image they were found in, in pixels of the image as given;
        what a point's position is accurate to goes with it.
    :param ratio_power: of the squared distance, in the ratio test: 0.5 where distance is that of
        the vectors, 1 where it is the number of bits that differ, which is a square already.
    """

    points_px: Float32Array
    descriptors: Float32Array
    step_px: float = 1.0
    ratio_power: float = 0.5

    def __len__(self) -> int:
        return len(self.points_px)


class FeatureExtractor(Protocol):
    """Finds local features; thread-safe and deterministic."""

    def extract(self, image_rgb: UInt8Array) -> Features:
        """Return the features of an (H, W, 3) uint8 RGB image."""
        ...


class RootSift:
    """SIFT with Hellinger-normalised descriptors (Arandjelovic and Zisserman 2012).

    :param width_px: wider images are reduced to this width, which bounds the time; 0 never.
    :param enlarge_below_px: narrower images are enlarged to at least ``width_px``.
    """

    def __init__(self, max_features: int, width_px: int, enlarge_below_px: int) -> None:
        self._max_features = max_features
        self._width_px = width_px
        self._enlarge_below_px = enlarge_below_px

    def extract(self, image_rgb: UInt8Array) -> Features:
        """Return the features of an (H, W, 3) uint8 RGB image."""
        gray, scale = _working_image(image_rgb, self._width_px, self._enlarge_below_px)
        sift = cv2.SIFT.create(self._max_features, contrastThreshold=SIFT_CONTRAST_THRESHOLD)
        keypoints, descriptors = sift.detectAndCompute(gray, None)
        if descriptors is None:
            return _none(128)
        sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
        points = _image_points(keypoints, scale, SIFT_SHIFT_PX)
        return Features(points, np.sqrt(descriptors / sums), 1.0 / scale[0])


class Orb:
    """ORB with its bits as +-1 / 16, so that the inner product counts the bits that agree."""

    def __init__(self, max_features: int, width_px: int, enlarge_below_px: int) -> None:
        self._max_features = max_features
        self._width_px = width_px
        self._enlarge_below_px = enlarge_below_px

    def extract(self, image_rgb: UInt8Array) -> Features:
        """Return the features of an (H, W, 3) uint8 RGB image."""
        gray, scale = _working_image(image_rgb, self._width_px, self._enlarge_below_px)
        orb = cv2.ORB.create(self._max_features, scaleFactor=ORB_SCALE, fastThreshold=7)
        keypoints, descriptors = orb.detectAndCompute(gray, None)
        if descriptors is None:
            return _none(256)
        bits = np.unpackbits(descriptors, axis=1).astype(np.float32)
        # OpenCV scales the points of a smaller level as if pixels had their centres at corners.
        levels = np.array([item.octave for item in keypoints])
        shift_px = 0.5 * (1.0 - ORB_SCALE**levels)
        return Features(
            _image_points(keypoints, scale, shift_px),
            (2.0 * bits - 1.0) / np.float32(16.0),
            1.0 / scale[0],
            ratio_power=1.0,
        )


def make_extractor(config: VerificationConfig) -> FeatureExtractor:
    """Return the extractor that ``config.features`` names."""
    kind = Orb if config.features == 'orb' else RootSift
    return kind(config.max_features, config.feature_width_px, config.enlarge_below_px)


def _working_image(
    image_rgb: UInt8Array, width_px: int, enlarge_below_px: int
) -> tuple[UInt8Array, tuple[float, float]]:
    """Return the gray image that features are found in, and its scale along x and y."""
    gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    if width < enlarge_below_px:
        factor, how = float(-(-enlarge_below_px // width)), cv2.INTER_CUBIC
    elif width_px and width > width_px:
        factor, how = width_px / width, cv2.INTER_AREA
    else:
        return np.asarray(gray, dtype=np.uint8), (1.0, 1.0)
    size = (round(width * factor), round(height * factor))
    resized = cv2.resize(gray, size, interpolation=how)
    return np.asarray(resized, dtype=np.uint8), (size[0] / width, size[1] / height)


def _image_points(
    keypoints: Sequence[cv2.KeyPoint], scale: tuple[float, float], shift_px: float | FloatArray
) -> Float32Array:
    """Return keypoints as pixels of the image as given; pixel centres are at integers.

    :param shift_px: how far right and below its place the detector puts every point, or each.
    """
    points = np.array([item.pt for item in keypoints], dtype=np.float64)
    points -= np.reshape(shift_px, (-1, 1))
    return np.asarray((points + 0.5) / np.array(scale) - 0.5, dtype=np.float32)


def _none(dim: int) -> Features:
    return Features(np.zeros((0, 2), np.float32), np.zeros((0, dim), np.float32))
