# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Meshes of quads, built face by face; the world is a list of these surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
import math
from typing import Optional, Union

import numpy as np
import numpy.typing as npt

from netvlad_ros.types import Float32Array, FloatArray, UInt8Array

Rgb = tuple[int, int, int]
UvRect = tuple[float, float, float, float]
Vector = Union[Sequence[float], FloatArray]

# Faces of a box that point up, down and sideways differ in brightness even in flat light.
TOP_SHADE, SIDE_SHADE = 1.08, 0.94


class SurfaceKind(Enum):
    """How light acts on a surface."""

    LIT = 'lit'
    GROUND = 'ground'
    SKY = 'sky'


@dataclass(frozen=True)
class Surface:
    """Quads that share one texture, or that have a colour at each corner.

    :param points: (N, 3) float32 metres in the world frame.
    :param quads: (M, 4) int64 rows of point indices.
    :param uv: (N, 2) float32 texture coordinates, v = 0 is the texture's bottom row.
    :param texture: (H, W, 3) uint8 RGB; None if coloured by ``rgb``.
    :param rgb: (N, 3) uint8; None if textured.
    """

    points: Float32Array
    quads: npt.NDArray[np.int64]
    uv: Optional[Float32Array] = None
    texture: Optional[UInt8Array] = None
    rgb: Optional[UInt8Array] = None
    kind: SurfaceKind = SurfaceKind.LIT


def rotation_z(yaw_rad: float) -> FloatArray:
    """Return the (3, 3) rotation about z."""
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


class MeshBuilder:
    """Collects quads and solids made of quads."""

    def __init__(self) -> None:
        self._points: list[FloatArray] = []
        self._uv: list[FloatArray] = []
        self._rgb: list[npt.NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._points)

    def quad(
        self,
        corners: npt.ArrayLike,
        uv: UvRect = (0.0, 0.0, 1.0, 1.0),
        rgb: Rgb = (255, 255, 255),
        shade: float = 1.0,
    ) -> None:
        """Add one quad.

        :param corners: (4, 3) metres: bottom left, bottom right, top right, top left of the uv.
        :param uv: u0, v0, u1, v1 of the texture's part that covers the quad.
        """
        u0, v0, u1, v1 = uv
        self._points.append(np.asarray(corners, dtype=np.float64))
        self._uv.append(np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]]))
        self._rgb.append(np.tile(np.clip(np.multiply(rgb, shade), 0, 255).astype(int), (4, 1)))

    def box(
        self,
        centre_xy: Vector,
        size_xyz: Sequence[float],
        z0: float,
        yaw_rad: float,
        rgb: Rgb = (255, 255, 255),
        uv: UvRect = (0.0, 0.0, 1.0, 1.0),
    ) -> None:
        """Add a box that stands on height ``z0``, turned about its vertical axis."""
        hx, hy, h = size_xyz[0] / 2, size_xyz[1] / 2, size_xyz[2]
        outline = [(-hx, -hy), (hx, -hy), (hx, hy), (-hx, hy)]
        self.prism(outline, centre_xy, z0, h, yaw_rad, rgb, uv)

    def prism(
        self,
        outline: Sequence[tuple[float, float]],
        centre_xy: Vector,
        z0: float,
        height: float,
        yaw_rad: float,
        rgb: Rgb = (255, 255, 255),
        uv: UvRect = (0.0, 0.0, 1.0, 1.0),
        top_scale: float = 1.0,
    ) -> None:
        """Add a vertical prism over an even number of outline points, tapered to ``top_scale``."""
        base = np.array([(x, y, 0.0) for x, y in outline]) @ rotation_z(yaw_rad).T
        top = base * [top_scale, top_scale, 1.0] + [0.0, 0.0, height]
        offset = np.array([centre_xy[0], centre_xy[1], z0])
        base, top = base + offset, top + offset
        n = len(base)
        u0, v0, u1, v1 = uv
        for i in range(n):
            j = (i + 1) % n
            part = (u0 + (u1 - u0) * i / n, v0, u0 + (u1 - u0) * (i + 1) / n, v1)
            shade = SIDE_SHADE + 0.05 * math.sin(2.4 * i)
            self.quad([base[i], base[j], top[j], top[i]], part, rgb, shade)
        for i in range(1, n - 2, 2):
            cap = [top[0], top[i], top[i + 1], top[i + 2]]
            self.quad(cap, (u0, v1 - 1e-3, u1, v1), rgb, TOP_SHADE)

    def cylinder(
        self,
        centre_xy: Vector,
        radius: float,
        z0: float,
        height: float,
        rgb: Rgb = (255, 255, 255),
        uv: UvRect = (0.0, 0.0, 1.0, 1.0),
        sides: int = 12,
        top_scale: float = 1.0,
    ) -> None:
        """Add a vertical cylinder, or a cone for a small ``top_scale``."""
        angles = np.arange(sides) * (2 * math.pi / sides)
        outline = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
        self.prism(outline, centre_xy, z0, height, 0.0, rgb, uv, top_scale)

    def blob(
        self,
        centre: Vector,
        radius: float,
        rng: np.random.Generator,
        rows: int = 6,
        columns: int = 10,
    ) -> None:
        """Add a dented ball with the texture wrapped around it, a part of a tree's crown."""
        bumps = rng.uniform(0.75, 1.15, (rows + 1, columns))
        bumps = np.concatenate([bumps, bumps[:, :1]], axis=1)
        bumps[0], bumps[-1] = 1.0, 1.0
        polar = np.linspace(0.0, math.pi, rows + 1)[:, None]
        azimuth = np.linspace(0.0, 2 * math.pi, columns + 1)[None, :]
        grid = np.stack(
            [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth),
             0.85 * np.cos(polar) * np.ones_like(azimuth)], axis=-1,
        ) * bumps[..., None] * radius + np.asarray(centre)
        shift = rng.uniform(0.0, 0.5)
        for i in range(rows):
            for j in range(columns):
                corners = [grid[i + 1, j], grid[i + 1, j + 1], grid[i, j + 1], grid[i, j]]
                u, v = j / columns + shift, 0.5 * i / rows
                self.quad(corners, (u, v, u + 1 / columns, v + 0.5 / rows))

    def build(
        self, texture: Optional[UInt8Array] = None, kind: SurfaceKind = SurfaceKind.LIT
    ) -> Surface:
        """Return the surface, textured if a texture is given and else in the quads' colours."""
        points = np.concatenate(self._points).astype(np.float32)
        quads = np.arange(len(points), dtype=np.int64).reshape(-1, 4)
        if texture is None:
            rgb = np.concatenate(self._rgb).astype(np.uint8)
            return Surface(points, quads, rgb=rgb, kind=kind)
        uv = np.concatenate(self._uv).astype(np.float32)
        return Surface(points, quads, uv=uv, texture=texture, kind=kind)
