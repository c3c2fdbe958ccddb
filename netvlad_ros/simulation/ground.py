# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ground's texture: asphalt, kerbs, paving slabs, markings, cracks and cast shadows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from netvlad_ros.simulation.layout import Street, edges, left_normals, offset
from netvlad_ros.simulation.materials import noise, shade
from netvlad_ros.types import FloatArray, UInt8Array

MAX_TEXTURE_PX = 2600
MARGIN_M = 14.0
PAVEMENT_SHARE = 0.3


@dataclass(frozen=True)
class Block:
    """A building's footprint, which casts a shadow.

    :param outline_xy: (4, 2) convex outline in metres.
    """

    outline_xy: FloatArray
    height_m: float


class GroundMap:
    """Maps the ground plane to the pixels of one square texture.

    :param street: everything within ``MARGIN_M`` of it is on the map.
    """

    def __init__(self, street: Street) -> None:
        low, high = street.centre_xy.min(axis=0), street.centre_xy.max(axis=0)
        self.side_m = float((high - low).max()) + 2 * MARGIN_M
        self.low_xy = (low + high) / 2 - self.side_m / 2
        self.size_px = int(min(MAX_TEXTURE_PX, self.side_m * 48))
        self.px_per_m = self.size_px / self.side_m

    def px(self, points_xy: FloatArray) -> FloatArray:
        """Return (N, 2) pixels (x right, y down) of points in metres."""
        xy = (np.asarray(points_xy) - self.low_xy) * self.px_per_m
        return np.stack([xy[:, 0], self.size_px - xy[:, 1]], axis=1)

    def polygon(self, image: UInt8Array, points_xy: FloatArray, colour: Sequence[int]) -> None:
        """Fill a polygon given in metres."""
        points = np.round(self.px(points_xy) * 16).astype(np.int32)
        cv2.fillPoly(image, [points], tuple(colour), cv2.LINE_AA, 4)

    def line(
        self, image: UInt8Array, a_xy: FloatArray, b_xy: FloatArray, width_m: float,
        colour: Sequence[int],
    ) -> None:
        """Draw a straight line given in metres."""
        a, b = np.round(self.px(np.stack([a_xy, b_xy]))).astype(int).tolist()
        width = max(1, round(width_m * self.px_per_m))
        cv2.line(image, a, b, tuple(colour), width, cv2.LINE_AA)


def draw_ground(rng: np.random.Generator, street: Street, ground: GroundMap) -> UInt8Array:
    """Return (S, S, 3) uint8 RGB of the ground in even light."""
    size, k = ground.size_px, ground.px_per_m
    image = _slabs(rng, size, k)
    road = street.half_width_m * (1.0 - PAVEMENT_SHARE)
    outer, inner = offset(street.centre_xy, -road), offset(street.centre_xy, road)
    mask = np.zeros((size, size), np.uint8)
    ground.polygon(mask, outer, (255,))
    if road < 0.45 * np.linalg.norm(edges(street.centre_xy), axis=1).min():
        ground.polygon(mask, inner, (0,))
    tone = 92 + 5 * rng.standard_normal((size, size), dtype=np.float32)
    tone = tone + 7 * noise(rng, size, size, (20, 120))
    asphalt = np.clip(tone[..., None] + [0, 0, 3], 0, 255).astype(np.uint8)
    _marks(rng, street, ground, asphalt)
    image[mask > 127] = asphalt[mask > 127]
    for ring in (outer, inner):
        points = np.round(ground.px(ring)).astype(np.int32)
        cv2.polylines(image, [points], True, (176, 172, 166), max(2, round(0.16 * k)), cv2.LINE_AA)
    return image


def _slabs(rng: np.random.Generator, size: int, k: float) -> UInt8Array:
    """Return paving slabs of 0.6 m with stains."""
    step = max(8, round(0.6 * k))
    count = size // step + 1
    tones = rng.normal(150, 9, (count, count)).astype(np.float32)
    index = np.arange(size) // step
    tone = tones[index[:, None], index[None, :]] + 9 * noise(rng, size, size, (8, 90))
    joint = np.arange(size) % step < 2
    tone[joint, :] -= 34
    tone[:, joint] -= 34
    return shade((4, 0, -8), tone)


def _marks(
    rng: np.random.Generator, street: Street, ground: GroundMap, image: UInt8Array
) -> None:
    """Draw patches, cracks, covers, centre dashes, crossings and letters on the asphalt."""
    corners, normals = street.centre_xy, left_normals(street.centre_xy)
    road = street.half_width_m * (1.0 - PAVEMENT_SHARE)
    for corner, along, normal in zip(corners, edges(corners), normals, strict=True):
        length = float(np.linalg.norm(along))
        unit = along / length

        def at(s: float, y: float, c: FloatArray = corner, u: FloatArray = unit,
               n: FloatArray = normal) -> FloatArray:
            return np.asarray(c + s * u + y * n)

        for _ in range(int(length / 3)):
            s, y = rng.uniform(0, length), rng.uniform(-road, road)
            ds, dy, tone = rng.uniform(0.4, 2.4), rng.uniform(0.3, 1.0), int(rng.integers(58, 112))
            patch = np.stack([at(s, y), at(s + ds, y), at(s + ds, y + dy), at(s, y + dy)])
            ground.polygon(image, patch, (tone, tone, tone + 2))
        for _ in range(int(length / 2.5)):
            steps = rng.normal(0, 0.35, (9, 2)).cumsum(axis=0)
            path = at(rng.uniform(0, length), rng.uniform(-road, road)) + steps
            cv2.polylines(image, [np.round(ground.px(path)).astype(np.int32)], False,
                          (52, 52, 54), 2, cv2.LINE_AA)
        for s in np.arange(road + 1.5, length - road - 1.5, 3.0):
            ground.line(image, at(s, 0), at(s + 1.4, 0), 0.12, (214, 212, 204))
        if rng.random() < 0.6:
            s = road + 0.8
            for y in np.arange(-road + 0.3, road - 0.3, 0.9):
                ground.line(image, at(s, y), at(s + 2.2, y), 0.42, (216, 214, 208))
        for _ in range(int(length / 7)):
            centre = ground.px(at(rng.uniform(0, length), rng.uniform(-road, road))[None])[0]
            radius = round(0.32 * ground.px_per_m)
            where = tuple(np.round(centre).astype(int).tolist())
            cv2.circle(image, where, radius, (64, 62, 60), -1, cv2.LINE_AA)
            cv2.circle(image, where, radius, (38, 38, 38), 2, cv2.LINE_AA)
            for r in range(3, radius - 2, 5):
                cv2.circle(image, where, r, (88, 86, 82), 1)


def shadow_mask(
    blocks: Sequence[Block], ground: GroundMap, sun_azimuth_rad: float, sun_elevation_rad: float
) -> UInt8Array:
    """Return (S, S) uint8: 255 where blocks keep the sun from the ground."""
    mask = np.zeros((ground.size_px, ground.size_px), np.uint8)
    direction = -np.array([np.cos(sun_azimuth_rad), np.sin(sun_azimuth_rad)])
    reach = 1.0 / np.tan(max(sun_elevation_rad, 0.1))
    for block in blocks:
        far = block.outline_xy + direction * (block.height_m * reach)
        points = ground.px(np.concatenate([block.outline_xy, far])).astype(np.float32)
        hull = cv2.convexHull(points)
        cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 255)
    size = 2 * round(0.08 * ground.px_per_m) + 1
    return np.asarray(cv2.blur(mask, (size, size)))
