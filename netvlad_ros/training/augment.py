# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Random views of one image: another camera direction, other light, blur, noise, less detail.

A turn of the camera about its own centre maps an image by the homography ``K R K^-1`` exactly,
whatever the scene, so turning is the one change of viewpoint that needs no depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from netvlad_ros.config import setting, validate
from netvlad_ros.types import FloatArray, UInt8Array


@dataclass(frozen=True)
class AugmentConfig:
    """Largest changes of an augmented image; 0 (zoom: 1) switches one off."""

    turn_deg: float = setting(
        10.0, 'Turn of the camera to the side and up or down, either way.',
        unit='deg', minimum=0.0, maximum=45.0,
    )
    roll_deg: float = setting(
        8.0, 'Turn about the viewing direction, either way.',
        unit='deg', minimum=0.0, maximum=180.0,
    )
    zoom: float = setting(
        1.25, 'Largest enlargement, and the inverse of the largest reduction.',
        minimum=1.0, maximum=3.0,
    )
    crop: float = setting(
        0.1, 'Share of each side that a crop may cut away.', minimum=0.0, maximum=0.5
    )
    light: float = setting(
        0.35, 'Relative change of brightness, contrast and, by half, of each colour.',
        minimum=0.0, maximum=0.9,
    )
    gamma: float = setting(
        0.3, 'Change of the logarithm of the gamma curve, either way.', minimum=0.0, maximum=1.0
    )
    blur_px: float = setting(
        2.0, 'Standard deviation of a blur, or half the length of a motion blur.',
        unit='px', minimum=0.0, maximum=20.0,
    )
    noise: float = setting(
        0.03, 'Standard deviation of noise, of full scale.', minimum=0.0, maximum=0.5
    )
    low_detail: float = setting(
        0.3, 'Share of images shrunk to between a third and all of their size and back.',
        minimum=0.0, maximum=1.0,
    )
    gray: float = setting(
        0.15, 'Share of images without colour.', minimum=0.0, maximum=1.0
    )
    fisheye: float = setting(
        0.25, "Share of images bent as by a fisheye lens whose dark rim covers the corners: what "
        "all of a camera's images have in common must not count.", minimum=0.0, maximum=1.0,
    )


class Augment:
    """A function from an image to one random view of it.

    :param config: how much may change.
    :param focal: focal length in image widths, 0.9 for a usual phone or robot camera (58 deg).
    """

    def __init__(self, config: AugmentConfig, focal: float = 0.9) -> None:
        validate(config, 'augment.')
        self.config = config
        self.focal = focal

    def __call__(self, image_rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """Return a view of the same size.

        :param image_rgb: (H, W, 3) uint8 RGB.
        """
        image = self._turned(image_rgb, rng)
        if rng.random() < self.config.fisheye:
            image = through_fisheye(image, rng)
        image = self._less_sharp(image, rng)
        return self._relit(image, rng)

    def homography(self, width: int, height: int, rng: np.random.Generator) -> FloatArray:
        """Return the (3, 3) map from pixels of the image to pixels of a random view."""
        c = self.config
        yaw, pitch = rng.uniform(-c.turn_deg, c.turn_deg), rng.uniform(-c.turn_deg, c.turn_deg)
        roll = rng.uniform(-c.roll_deg, c.roll_deg)
        zoom = float(np.exp(rng.uniform(-1, 1) * np.log(c.zoom)))
        f = self.focal * width
        K = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1.0]])
        K_view = K.copy()
        K_view[:2, :2] *= zoom
        R = Rotation.from_euler('yxz', [yaw, pitch, roll], degrees=True).as_matrix()
        left, top = rng.uniform(0, c.crop, 2)
        right, bottom = rng.uniform(0, c.crop, 2)
        sx, sy = 1 / (1 - (left + right) / 2), 1 / (1 - (top + bottom) / 2)
        crop = np.array([
            [sx, 0, -sx * left / 2 * width], [0, sy, -sy * top / 2 * height], [0, 0, 1.0],
        ])
        return np.asarray(crop @ K_view @ R @ np.linalg.inv(K))

    def _turned(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        height, width = image.shape[:2]
        H = self.homography(width, height, rng)
        # Mirrored borders: a black frame would be the one thing that all views have in common.
        view = cv2.warpPerspective(
            image, H, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return np.asarray(view, dtype=np.uint8)

    def _less_sharp(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        c = self.config
        height, width = image.shape[:2]
        if rng.random() < c.low_detail:
            scale = rng.uniform(1 / 3, 1)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            image = np.asarray(cv2.resize(small, (width, height)), dtype=np.uint8)
        kind, amount = rng.random(), rng.uniform(0, c.blur_px)
        if amount < 0.3 or kind < 1 / 3:
            return image
        if kind < 2 / 3:
            return np.asarray(cv2.GaussianBlur(image, (0, 0), amount), dtype=np.uint8)
        return np.asarray(cv2.filter2D(image, -1, _motion_kernel(amount, rng)), dtype=np.uint8)

    def _relit(self, image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        c = self.config
        x = image.astype(np.float32) / 255
        x = x ** np.float32(np.exp(rng.uniform(-c.gamma, c.gamma)))
        gains = 1 + rng.uniform(-1, 1, 3) * c.light / 2
        mean = x.mean()
        contrast, brightness = 1 + rng.uniform(-1, 1, 2) * c.light
        x = ((x - mean) * contrast + mean * brightness) * gains.astype(np.float32)
        if rng.random() < c.gray:
            x = np.repeat((x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=2)
        if c.noise > 0:
            deviation = np.float32(rng.uniform(0, c.noise))
            x = x + deviation * rng.standard_normal(x.shape, dtype=np.float32)
        return (x.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def augmented(
    images: UInt8Array, numbers: Iterable[int], augment: Augment, view: int, seed: int
) -> UInt8Array:
    """Return one view of each image, the same again for the same numbers, view and seed.

    :param images: (n, H, W, 3) uint8 RGB.
    :param numbers: of the n images in their dataset.
    """
    return np.stack([
        augment(image, np.random.default_rng([seed, view, number]))
        for number, image in zip(numbers, images, strict=True)
    ])


def through_fisheye(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Return a view as of an equidistant fisheye lens that sees the whole image, with its rim.

    The radius in the view grows with the angle to the axis, that in the image with its tangent.

    :param image: (H, W, 3) uint8 of a camera without distortion.
    """
    height, width = image.shape[:2]
    radius_px = rng.uniform(0.45, 0.6) * width
    edge_rad = np.radians(rng.uniform(40, 65))
    centre = np.array([width, height]) * rng.uniform(0.47, 0.53, 2)
    x, y = np.meshgrid(np.arange(width) - centre[0], np.arange(height) - centre[1])
    r_px = np.hypot(x, y)
    share = np.minimum(r_px / radius_px, 1.0)
    stretch = np.tan(share * edge_rad) / np.tan(edge_rad) * (width / 2) / np.maximum(r_px, 1e-6)
    view = cv2.remap(
        image,
        (x * stretch + width / 2).astype(np.float32),
        (y * stretch + height / 2).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    inside = np.clip((radius_px - r_px) / rng.uniform(2, 10), 0, 1)[..., None]
    rim = rng.uniform(0, 40)
    return np.asarray(view * inside + rim * (1 - inside) + 0.5, dtype=np.uint8)


def _motion_kernel(half_length_px: float, rng: np.random.Generator) -> FloatArray:
    """Return the kernel of a straight motion blur in a random direction."""
    reach = int(np.ceil(half_length_px))
    size = 2 * reach + 1
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((size, size), np.float32)
    dx, dy = half_length_px * np.cos(angle), half_length_px * np.sin(angle)
    start = (round((reach - dx) * 16), round((reach - dy) * 16))
    end = (round((reach + dx) * 16), round((reach + dy) * 16))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA, 4)
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)
