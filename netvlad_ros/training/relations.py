# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which pairs of images show one place, which do not, and which nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import itertools
from typing import Optional, Union

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from netvlad_ros.errors import InputError
from netvlad_ros.training.places import (
    HEADING_DEG,
    LOOK_ALIKE_FROM_M,
    IntArray,
    PlaceDataset,
    PlaceImages,
)
from netvlad_ros.types import FloatArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Relations:
    """Pairs by distance: one place up to ``positive_m``, two places beyond ``negative_m``.

    Pairs of two floors are two places at any distance. Pairs between the two radii, near ones that
    look more than ``heading_deg`` apart, and far ones of one look-alike class are neither.

    :param part: (N,) number of the dataset that each image is of; None for one dataset.
    :param look_alike_from_m: distance beyond which look-alike classes count; (N,) or one for all.
    """

    images: PlaceImages
    positive_m: float
    negative_m: float
    heading_deg: float = HEADING_DEG
    part: Optional[IntArray] = None
    look_alike_from_m: Union[float, FloatArray] = LOOK_ALIKE_FROM_M

    def pairs(self, rows: npt.ArrayLike, columns: npt.ArrayLike) -> tuple[BoolArray, BoolArray]:
        """Return two (n, m) masks: pairs of one place, pairs of two places."""
        i, j = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
        xy_m = self.images.xy_m
        distance = np.linalg.norm(xy_m[i][:, None] - xy_m[j][None], axis=2)
        same, different = distance <= self.positive_m, distance > self.negative_m
        level = self.images.level
        if level is not None:
            # A nan is a level that this image lacks: its pairs go by distance alone.
            two_floors = np.abs(level[i][:, None] - level[j][None]) > 1
            same &= ~two_floors
            different |= two_floors
        if self.images.heading_deg is not None:
            heading = self.images.heading_deg
            turn = np.abs((heading[i][:, None] - heading[j][None] + 180) % 360 - 180)
            # A nan is a heading that this image lacks.
            same &= ~(turn > self.heading_deg)
        look_alike = self.images.look_alike
        if look_alike is not None:
            unclear = look_alike[i][:, None] == look_alike[j][None]
            unclear[look_alike[i] < 0] = False
            from_m = np.broadcast_to(self.look_alike_from_m, len(self.images))[i]
            different &= ~(unclear & (distance > from_m[:, None]))
        return same, different


def relations_of(dataset: PlaceDataset) -> Relations:
    """Return the relations of all images of a dataset, database first."""
    return Relations(
        dataset.all_images(), dataset.positive_radius_m, dataset.negative_radius_m,
        dataset.same_heading_deg,
    )  # fmt: skip


def joined(parts: Sequence[Relations]) -> Relations:
    """Return the images of several datasets as one, far apart from each other.

    Radii are those of each part: its positions, and the distance from which look-alike images
    count, are scaled to the first one's positive radius, and the negative radius is the largest
    after that; the angle is the first one's.
    """
    first = parts[0]
    xy_m, look_alike, heading, level, negative_m = [], [], [], [], first.negative_m
    from_m = []
    east_m = 0.0
    classes = 0
    for part in parts:
        scale = first.positive_m / part.positive_m
        negative_m = max(negative_m, part.negative_m * scale)
        local = (part.images.xy_m - part.images.xy_m.min(axis=0)) * scale
        xy_m.append(local + np.array([east_m, 0.0]))
        east_m += float(local[:, 0].max()) + 1e5
        known = part.images.look_alike
        count = len(part.images)
        look_alike.append(np.full(count, -1) if known is None else known + classes)
        classes = max(classes, int(look_alike[-1].max()) + 1)
        from_m.append(np.broadcast_to(part.look_alike_from_m, count) * scale)
        unknown = np.full(count, np.nan)
        degrees, floors = part.images.heading_deg, part.images.level
        heading.append(unknown if degrees is None else degrees)
        level.append(unknown if floors is None else floors)
    images = PlaceImages(
        paths=tuple(path for part in parts for path in part.images.paths),
        xy_m=np.concatenate(xy_m),
        look_alike=np.concatenate(look_alike).astype(np.int64),
        heading_deg=np.concatenate(heading),
        level=np.concatenate(level),
    )
    sizes = [len(part.images) for part in parts]
    numbers = np.repeat(np.arange(len(parts)), sizes).astype(np.int64)
    return Relations(
        images, first.positive_m, negative_m, first.heading_deg, numbers, np.concatenate(from_m)
    )


class PlaceSampler:
    """Draws batches of ``places`` times ``per_place`` images with hard negatives among them.

    Two of three places lie near a third one: beyond the negative radius, within ten times of it.
    Datasets take turns, so that the larger of two does not crowd out the other.

    :param relations: of the images to draw from.
    :raises InputError: no image has another one of its place.
    """

    def __init__(self, relations: Relations, places: int, per_place: int) -> None:
        self.places, self.per_place = places, per_place
        xy_m = relations.images.xy_m
        self._relations, self._tree = relations, cKDTree(xy_m)
        radius = relations.positive_m + 1e-9
        self._near: list[IntArray] = [
            np.array([j for j in row if j != i], dtype=np.int64)[
                relations.pairs([i], [j for j in row if j != i])[0][0]
            ]
            for i, row in enumerate(self._tree.query_ball_point(xy_m, radius, return_sorted=True))
        ]
        self.anchors: IntArray = np.flatnonzero([len(row) > 0 for row in self._near])
        if not len(self.anchors):
            raise InputError(
                f'no image has another one within {relations.positive_m:g} m: a place with one '
                'image cannot be trained on'
            )
        part = relations.part if relations.part is not None else np.zeros(len(xy_m), np.int64)
        of_anchors = part[self.anchors]
        self._by_part = [self.anchors[of_anchors == number] for number in np.unique(of_anchors)]

    @property
    def alone(self) -> int:
        """Return how many images are left out because their place has no other image."""
        return len(self._near) - len(self.anchors)

    def draw(self, rng: np.random.Generator) -> IntArray:
        """Return (places * per_place,) image indices, those of a place together."""
        anchors: list[int] = []
        turns = itertools.cycle(self._by_part)
        while len(anchors) < self.places:
            first = int(rng.choice(next(turns)))
            anchors.append(first)
            hard = self._hard(first)
            wanted = min(2, self.places - len(anchors), len(hard))
            anchors.extend(int(i) for i in rng.choice(hard, wanted, replace=False))
        batch: list[int] = []
        for anchor in anchors:
            near = self._near[anchor]
            wanted = self.per_place - 1
            # A place with fewer images repeats them, each time in another augmented view.
            others = rng.choice(near, wanted, replace=len(near) < wanted)
            batch.extend([anchor, *(int(i) for i in others)])
        return np.array(batch, dtype=np.int64)

    def pairs(self, count: int, rng: np.random.Generator) -> IntArray:
        """Return (count, 2) indices of two images of one place."""
        turns = itertools.cycle(self._by_part)
        firsts = [int(rng.choice(next(turns))) for _ in range(count)]
        pairs = [(first, int(rng.choice(self._near[first]))) for first in firsts]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def _hard(self, anchor: int) -> IntArray:
        """Return the sorted anchors near one, but at other places.

        Asked for each time: kept for all images of Pitts30k they would fill gigabytes.
        """
        xy_m, negative_m = self._relations.images.xy_m, self._relations.negative_m
        around = self._tree.query_ball_point(xy_m[anchor], 10 * negative_m, return_sorted=True)
        others: IntArray = np.intersect1d(around, self.anchors, assume_unique=True)
        far = np.linalg.norm(xy_m[others] - xy_m[anchor], axis=1) > negative_m
        hard: IntArray = others[far]
        return hard
