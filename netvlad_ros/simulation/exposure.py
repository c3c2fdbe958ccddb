# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a real camera does to a clean picture: motion blur, white balance, vignette, noise.

The depth sensor's part is here too: limited range, and steps that grow with the distance.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from netvlad_ros.simulation.light import Light
from netvlad_ros.types import Camera, Float32Array, FloatArray, UInt8Array

BLUR_SHARES = (-1 / 3, 1 / 3)
BLUR_GRID = 8
MIN_BLUR_PX = 0.5
VIGNETTE = 0.18
DEPTH_RANGE_M = (0.3, 40.0)
# Neighbouring depth values differ by this share, as a stereo or time-of-flight sensor's do.
DEPTH_STEP = 0.006


class Sensor:
    """Turns clean pictures of one camera into its images; the noise is a function of the seed."""

    def __init__(self, camera: Camera, seed: int) -> None:
        width, height = camera.size_wh
        self._camera = camera
        rng = np.random.default_rng((seed, 505))
        self._noise = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
        x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
        y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
        vignette = (1.0 - VIGNETTE * (x * x + y * y) / 2).astype(np.float32)
        self._vignette = np.repeat(vignette[..., None], 3, axis=2)
        # Photon noise grows with the root of the signal; a part does not depend on it.
        grey = np.arange(256, dtype=np.float32)
        self._noise_of_grey = np.sqrt(0.2 + grey / 160.0).astype(np.float32)

    def expose(
        self,
        image_rgb: UInt8Array,
        depth_m: Float32Array,
        T_start_end: FloatArray,
        light: Light,
        rng: np.random.Generator,
    ) -> UInt8Array:
        """Return the image (H, W, 3) uint8 RGB that the sensor reads out.

        :param depth_m: (H, W) of the same view, inf on the sky.
        :param T_start_end: (4, 4) motion of the optical frame while the shutter is open.
        """
        blurred = motion_blur(image_rgb, depth_m, T_start_end, self._camera)
        height, width = depth_m.shape
        dx, dy = (int(v) for v in rng.integers(0, 64, 2))
        noise = self._noise[dy:dy + height, dx:dx + width]
        tinted = cv2.transform(blurred, np.diag(light.tint_rgb))
        clean = cv2.multiply(tinted, self._vignette, dtype=cv2.CV_32F)
        strength = cv2.LUT(tinted, self._noise_of_grey * np.float32(light.noise_grey))
        # The sum saturates and rounds.
        return np.asarray(cv2.add(clean, cv2.multiply(strength, noise), dtype=cv2.CV_8U))


def motion_blur(
    image_rgb: UInt8Array, depth_m: Float32Array, T_start_end: FloatArray, camera: Camera
) -> UInt8Array:
    """Return the mean of views along the motion, made by moving pixels with their depth.

    :param T_start_end: (4, 4) motion of the optical frame, centred on the given view.
    """
    flow = image_flow(depth_m, T_start_end, camera)
    if float(np.abs(flow).max()) < MIN_BLUR_PX:
        return image_rgb
    height, width = depth_m.shape
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    grid = _pixel_grid(width, height)
    total = image_rgb.astype(np.float32)
    for share in BLUR_SHARES:
        at = cv2.scaleAdd(flow, share, grid)
        fixed = cv2.convertMaps(at, None, cv2.CV_16SC2)
        moved = cv2.remap(image_rgb, *fixed, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.accumulate(moved, total)
    return np.asarray(cv2.convertScaleAbs(total, alpha=1.0 / (1 + len(BLUR_SHARES))))


@functools.lru_cache(maxsize=2)
def _pixel_grid(width: int, height: int) -> Float32Array:
    """Return (height, width, 2) of each pixel's own x and y."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=-1)


def image_flow(depth_m: Float32Array, T_start_end: FloatArray, camera: Camera) -> Float32Array:
    """Return (H / 8, W / 8, 2) float32 pixels by which points move during the motion."""
    assert camera.K is not None
    depth = np.minimum(depth_m[BLUR_GRID // 2::BLUR_GRID, BLUR_GRID // 2::BLUR_GRID], 100.0)
    rows, columns = depth.shape
    u = np.arange(columns) * BLUR_GRID + BLUR_GRID // 2
    v = np.arange(rows) * BLUR_GRID + BLUR_GRID // 2
    pixels = np.stack([*np.meshgrid(u, v), np.ones_like(depth)], axis=-1)
    points = (pixels @ np.linalg.inv(camera.K).T) * depth[..., None]
    moved = (points - T_start_end[:3, 3]) @ T_start_end[:3, :3]
    projected = moved @ camera.K.T
    ends = projected[..., :2] / np.maximum(projected[..., 2:], 0.05)
    return np.asarray(ends - pixels[..., :2], dtype=np.float32)


def sense_depth(depth_m: Float32Array) -> npt.NDArray[np.uint16]:
    """Return (H, W) uint16 millimetres, 0 out of range, in steps of ``DEPTH_STEP``."""
    low, high = DEPTH_RANGE_M
    valid = (depth_m >= low) & (depth_m <= high)
    steps = np.round(np.log(np.where(valid, depth_m, 1.0)) / np.float32(np.log1p(DEPTH_STEP)))
    metres = np.exp(steps * np.float32(np.log1p(DEPTH_STEP)))
    return np.where(valid, np.round(1000.0 * metres), 0).astype(np.uint16)
