# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The closed street that a town is built along: a polygon without tight or doubled corners."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from netvlad_ros.errors import ConfigError
from netvlad_ros.types import FloatArray

MIN_LENGTH_M = 40.0
MAX_LENGTH_M = 600.0


@dataclass(frozen=True)
class Street:
    """A closed street.

    :param centre_xy: (N, 2) corners of its centre line in metres, counter-clockwise.
    :param half_width_m: from the centre line to the house fronts.
    """

    centre_xy: FloatArray
    half_width_m: float

    @property
    def length_m(self) -> float:
        """Length of the centre line once around."""
        return float(np.linalg.norm(edges(self.centre_xy), axis=1).sum())


def edges(polygon_xy: FloatArray) -> FloatArray:
    """Return (N, 2): from each corner to the next."""
    return np.roll(polygon_xy, -1, axis=0) - polygon_xy


def left_normals(polygon_xy: FloatArray) -> FloatArray:
    """Return (N, 2) unit normals to the left of each edge."""
    along = edges(polygon_xy)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    return np.stack([-along[:, 1], along[:, 0]], axis=1)


def offset(polygon_xy: FloatArray, distance_m: float) -> FloatArray:
    """Return the polygon with each edge moved to its left by ``distance_m``, corners mitred."""
    after = left_normals(polygon_xy)
    before = np.roll(after, 1, axis=0)
    mitre = (before + after) / (1.0 + (before * after).sum(axis=1, keepdims=True))
    return np.asarray(polygon_xy + distance_m * mitre)


def point_segment_m(points_xy: FloatArray, a_xy: FloatArray, b_xy: FloatArray) -> FloatArray:
    """Return (N,) distances in metres from points to the segment a-b."""
    along = b_xy - a_xy
    t = np.clip((points_xy - a_xy) @ along / (along @ along), 0.0, 1.0)
    return np.asarray(np.linalg.norm(points_xy - a_xy - t[:, None] * along, axis=1))


def _turns_rad(polygon_xy: FloatArray) -> FloatArray:
    """Return the signed change of heading at each corner."""
    after = edges(polygon_xy)
    before = np.roll(after, 1, axis=0)
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.asarray(np.arctan2(cross, (before * after).sum(axis=1)))


def _is_roomy(polygon_xy: FloatArray, half_width_m: float) -> bool:
    """Tell whether corners are moderate and streets that do not meet keep houses between them."""
    turns = np.abs(np.degrees(_turns_rad(polygon_xy)))
    if turns.max() > 115.0 or turns.min() < 20.0:
        return False
    sides = np.linalg.norm(edges(polygon_xy), axis=1)
    if sides.min() < 2.2 * half_width_m:
        return False
    n = len(polygon_xy)
    for i in range(n):
        others = [j for j in range(n) if j not in (i, (i + 1) % n)]
        a, b = polygon_xy[i], polygon_xy[(i + 1) % n]
        if point_segment_m(polygon_xy[others], a, b).min() < 2.6 * half_width_m:
            return False
    return True


def make_street(rng: np.random.Generator, length_m: float) -> Street:
    """Return a random closed street; a longer one has more corners.

    :raises ConfigError: the length is outside ``MIN_LENGTH_M`` to ``MAX_LENGTH_M``.
    """
    if not MIN_LENGTH_M <= length_m <= MAX_LENGTH_M:
        raise ConfigError(
            f'length is {length_m!r}, allowed: {MIN_LENGTH_M:g} to {MAX_LENGTH_M:g} m'
        )
    half_width_m = float(np.clip(0.052 * length_m, 2.4, 5.0))
    wanted = int(np.clip(round(length_m / 22.0), 4, 9))
    for attempt in range(4000):
        corners = max(4, wanted - attempt // 500)
        angles = 2 * math.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
        radii = rng.uniform(0.55, 1.0, corners)
        stretch = np.array([1.0, rng.uniform(0.65, 1.0)])
        polygon = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] * stretch
        polygon *= length_m / np.linalg.norm(edges(polygon), axis=1).sum()
        if _is_roomy(polygon, half_width_m):
            return Street(polygon, half_width_m)
    side = length_m / 4
    square = np.array([[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]]) - side / 2
    return Street(square, half_width_m)
