# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Divides both sides of a street into lots for houses and gardens, some of them built alike."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from netvlad_ros.simulation.facade import FacadeSpec
from netvlad_ros.simulation.layout import Street, edges, offset
from netvlad_ros.types import FloatArray

HOUSE_DEPTH_M = 6.0
CORNER_WIDTH_M = 5.5
TERRACE_WIDTH_M = 5.0
GARDEN_SHARE = 0.14

Ends = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True)
class Lot:
    """A piece of a street's side; left and right as seen from the street."""

    left_xy: FloatArray
    right_xy: FloatArray
    back_left_xy: FloatArray
    back_right_xy: FloatArray
    spec: FacadeSpec
    garden: bool = False

    @property
    def yaw_rad(self) -> float:
        """Direction from the left to the right end."""
        along = self.right_xy - self.left_xy
        return math.atan2(along[1], along[0])

    @property
    def inward(self) -> FloatArray:
        """Unit vector from the street into the lot."""
        return np.array([-math.sin(self.yaw_rad), math.cos(self.yaw_rad)])


def _same_turns(polygon_xy: FloatArray, original_xy: FloatArray) -> bool:
    """Tell whether every edge of an offset polygon still runs along the original's edge."""
    return bool(np.all((edges(polygon_xy) * edges(original_xy)).sum(axis=1) > 0))


class Lots:
    """All lots of a street.

    :param twins: indices of the street's corners whose outer houses are built alike.
    """

    def __init__(
        self, rng: np.random.Generator, street: Street, twins: tuple[int, int]
    ) -> None:
        self._rng, self._street = rng, street
        self.outer = self._outer(twins)
        self.inner = self._inner()

    def _new_spec(self, width_m: float) -> FacadeSpec:
        height = float(self._rng.choice([6.4, 7.2, 8.8, 9.4, 11.4]))
        return FacadeSpec(int(self._rng.integers(2**31)), width_m, height)

    def _outer(self, twins: tuple[int, int]) -> list[Lot]:
        h, corners = self._street.half_width_m, self._street.centre_xy
        # Seen from the street, lots of the outer side run clockwise, those of the inner side not.
        front, behind = offset(corners, -h)[::-1], offset(corners, -h - HOUSE_DEPTH_M)[::-1]
        twin_specs = [self._new_spec(CORNER_WIDTH_M) for _ in range(2)]
        lots: list[Lot] = []
        n = len(front)
        alike = {n - 1 - t for t in twins}
        for i in range(n):
            j = (i + 1) % n
            start = twin_specs[0] if i in alike else None
            end = twin_specs[1] if j in alike else None
            lots += self._side((front[i], front[j], behind[i], behind[j]), start, end)
        return lots

    def _inner(self) -> list[Lot]:
        """Return the lots of the block inside the street; none if it is too small for houses."""
        h, corners = self._street.half_width_m, self._street.centre_xy
        front, depth = offset(corners, h), HOUSE_DEPTH_M
        if not _same_turns(front, corners) or np.linalg.norm(edges(front), axis=1).min() < 2.5:
            return []
        while not _same_turns(behind := offset(corners, h + depth), corners):
            depth *= 0.8
        lots: list[Lot] = []
        terrace = int(np.argmax(np.linalg.norm(edges(front), axis=1)))
        n = len(front)
        for i in range(n):
            j = (i + 1) % n
            ends = front[i], front[j], behind[i], behind[j]
            lots += self._terrace(ends) if i == terrace else self._side(ends, None, None)
        return lots

    def _terrace(self, ends: Ends) -> list[Lot]:
        """Fill a side with houses of one kind."""
        length = float(np.linalg.norm(ends[1] - ends[0]))
        count = max(1, round(length / TERRACE_WIDTH_M))
        return _placed(ends, [(self._new_spec(length / count), False)] * count)

    def _side(
        self, ends: Ends, start: FacadeSpec | None, end: FacadeSpec | None
    ) -> list[Lot]:
        """Fill a side with different houses and gardens, with given houses at its corners."""
        room = float(np.linalg.norm(ends[1] - ends[0]))
        if room < CORNER_WIDTH_M * ((start is not None) + (end is not None)):
            start = end = None
        specs: list[tuple[FacadeSpec, bool]] = []
        for corner in (start, end):
            room -= corner.width_m if corner is not None else 0.0
        if start is not None:
            specs.append((start, False))
        while room > 0.05:
            width = room / max(1, round(room / self._rng.uniform(5.0, 10.0)))
            garden = len(specs) > 0 and self._rng.random() < GARDEN_SHARE
            specs.append((self._new_spec(width), bool(garden)))
            room -= width
        if end is not None:
            specs.append((end, False))
        return _placed(ends, specs)


def _placed(ends: Ends, specs: list[tuple[FacadeSpec, bool]]) -> list[Lot]:
    """Return lots side by side.

    :param ends: left, right, left behind and right behind, as seen from the street.
    :param specs: what stands on each, and whether it is a garden.
    """
    a, b, behind_a, behind_b = ends
    unit = (b - a) / np.linalg.norm(b - a)
    # Behind a corner the lots meet at the mitre, or a house would stand in the next street.
    low, high = float((behind_a - a) @ unit), float((behind_b - a) @ unit)
    foot = behind_a - low * unit
    lots, s = [], 0.0
    for k, (spec, garden) in enumerate(specs):
        left, right = s, s + spec.width_m
        back_left = low if k == 0 else float(np.clip(left, low, high))
        back_right = high if k == len(specs) - 1 else float(np.clip(right, low, high))
        lots.append(Lot(a + left * unit, a + right * unit, foot + back_left * unit,
                        foot + back_right * unit, spec, garden))
        s = right
    return lots
