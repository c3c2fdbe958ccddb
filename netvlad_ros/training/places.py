# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A place-recognition dataset: images with positions, a database and queries.

Every reader of this package returns a ``PlaceDataset``, so that clustering, training, whitening
and testing know one kind of data only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import hashlib
from pathlib import Path
from typing import Optional

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from netvlad_ros.errors import InputError
from netvlad_ros.types import FloatArray

IntArray = npt.NDArray[np.int64]

# Of the Pitts structs: right within 25 m, trained as a positive within 10 m.
TRUE_RADIUS_M = 25.0
POSITIVE_RADIUS_M = 10.0

# Nearer pairs of one look-alike class belong to one walk, where distance tells places apart.
LOOK_ALIKE_FROM_M = 500.0

# Two views of a place overlap by about half up to this angle (60 degrees field of view).
HEADING_DEG = 35.0

_OPTIONAL = ('stamp', 'panorama', 'look_alike', 'heading_deg', 'level')

# UTM northing ends at 10,000 km, so that cities of all continents span no more (of Mapillary SLS
# nearly as much); one city in millimetres does.
LARGEST_SPAN_M = 1e7


@dataclass(frozen=True)
class PlaceImages:
    """Images and what is known of where they were taken.

    :param paths: N image files.
    :param xy_m: (N, 2) float64 east and north in metres.
    :param stamp: (N,) float64 time of each image, equal where taken at once; None if unknown.
    :param panorama: (N,) int64 number of the panorama that an image is cut from; None if single.
    :param look_alike: (N,) int64 class whose members may look the same at different places (one
        corridor on every floor): pairs of a class farther apart than ``LOOK_ALIKE_FROM_M`` are
        neither positive nor negative; None if no such.
    :param heading_deg: (N,) compass direction of view; None if unknown. Where it is known, images
        of one place that look apart are neither positive nor negative when pairs are labelled.
    :param level: (N,) height in floors, not rounded; None if unknown. Images more than one floor
        apart show two places, however near they are from above.
    """

    paths: tuple[Path, ...]
    xy_m: FloatArray
    stamp: Optional[FloatArray] = None
    panorama: Optional[IntArray] = None
    look_alike: Optional[IntArray] = None
    heading_deg: Optional[FloatArray] = None
    level: Optional[FloatArray] = None

    def __post_init__(self) -> None:
        for name in ('xy_m', *_OPTIONAL):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.paths):
                raise InputError(
                    f'{len(self.paths)} images but {len(values)} values of {name}: the list and '
                    'its positions do not belong together'
                )

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: npt.ArrayLike) -> PlaceImages:
        """Return the images with the given indices, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        optional = {
            name: values[chosen]
            for name in _OPTIONAL
            if (values := getattr(self, name)) is not None
        }
        return replace(
            self, paths=tuple(self.paths[i] for i in chosen), xy_m=self.xy_m[chosen], **optional
        )


@dataclass(frozen=True)
class PlaceDataset:
    """A database to search, queries to find in it, and what counts as right.

    :param split: 'train', 'val' or 'test' as far as the data say so, else ''.
    :param true_radius_m: a database image within this distance of a query is right (inclusive).
    :param positive_radius_m: within this distance it may serve as a training positive.
    :param negative_radius_m: beyond this distance it may serve as a training negative.
    :param same_heading_deg: images of one place that look farther apart than this are neither
        positive nor negative when pairs are labelled.
    :param same_stamp_is_trivial: images of equal stamp are one recording: never a positive, and
        taken out of a ranking before it is judged (Tokyo Time Machine).
    :raises InputError: stamps are needed but not known.
    """

    name: str
    database: PlaceImages
    queries: PlaceImages
    split: str = ''
    true_radius_m: float = TRUE_RADIUS_M
    positive_radius_m: float = POSITIVE_RADIUS_M
    negative_radius_m: float = TRUE_RADIUS_M
    same_heading_deg: float = HEADING_DEG
    same_stamp_is_trivial: bool = False

    def __post_init__(self) -> None:
        known = (self.queries.stamp, self.database.stamp)
        if self.same_stamp_is_trivial and any(stamp is None for stamp in known):
            raise InputError(f'{self.name}: time stamps are needed but not known')

    def within(self, radius_m: float, beyond_m: float = -1.0) -> list[IntArray]:
        """Return for each query the sorted database indices with beyond < distance <= radius.

        Those of another floor are left out. Only distance and height count here: whoever lies
        outside may be a negative, of whatever stamp.
        """
        tree = cKDTree(self.database.xy_m)
        found = tree.query_ball_point(self.queries.xy_m, radius_m + 1e-9, return_sorted=True)
        near = [np.asarray(row, dtype=np.int64) for row in found]
        if beyond_m >= 0:
            near = [
                row[
                    np.linalg.norm(self.database.xy_m[row] - xy, axis=1) > beyond_m
                ] if len(row) else row
                for row, xy in zip(near, self.queries.xy_m, strict=True)
            ]
        queries, database = self.queries.level, self.database.level
        if queries is not None and database is not None:
            near = [
                row[np.abs(database[row] - level) <= 1]
                for row, level in zip(near, queries, strict=True)
            ]
        return near

    def positives(self, beyond_m: float = -1.0) -> list[IntArray]:
        """Return for each query the database images that may serve as its positive."""
        return self._not_trivial(self.within(self.positive_radius_m, beyond_m))

    def right(self) -> list[IntArray]:
        """Return for each query the database images that count as found."""
        return self._not_trivial(self.within(self.true_radius_m))

    def trivial_stamps(self) -> Optional[tuple[FloatArray, FloatArray]]:
        """Return (M,) and (N,) stamps of queries and database; None if equal ones mean nothing."""
        queries, database = self.queries.stamp, self.database.stamp
        if not self.same_stamp_is_trivial or queries is None or database is None:
            return None
        return queries, database

    def _not_trivial(self, near: list[IntArray]) -> list[IntArray]:
        stamps = self.trivial_stamps()
        if stamps is None:
            return near
        queries, database = stamps
        return [row[database[row] != stamp] for row, stamp in zip(near, queries, strict=True)]

    def all_images(self) -> PlaceImages:
        """Return database and queries as one list, database first."""
        joined: dict[str, npt.NDArray[np.generic]] = {}
        for name in _OPTIONAL:
            first, second = getattr(self.database, name), getattr(self.queries, name)
            if name != 'panorama' and first is not None and second is not None:
                joined[name] = np.concatenate([first, second])
        return PlaceImages(
            paths=self.database.paths + self.queries.paths,
            xy_m=np.concatenate([self.database.xy_m, self.queries.xy_m]),
            **joined,  # type: ignore[arg-type]
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits over names, positions and radii: what a checkpoint belongs to."""
        digest = hashlib.sha256()
        for images in (self.database, self.queries):
            digest.update('\n'.join(f'{p.parent.name}/{p.name}' for p in images.paths).encode())
            digest.update(np.ascontiguousarray(images.xy_m).tobytes())
            if images.level is not None:
                digest.update(images.level.tobytes())
        digest.update(f'{self.true_radius_m} {self.positive_radius_m}'.encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class SelfCheck:
    """What a reader found, to compare with what the dataset's authors say.

    :param without_positive: queries without a database image within the positive radius.
    :param without_far_positive: likewise, not counting images within 1 m of the query.
    :param worst_nearest_m: largest distance from a query to its nearest database image.
    :param ceiling: share of queries with a right answer: the best possible recall.
    """

    database: int
    queries: int
    database_positions: int
    query_positions: int
    without_positive: int
    without_far_positive: int
    worst_nearest_m: float
    mean_right: float
    ceiling: float

    @property
    def trainable(self) -> int:
        """Return the queries with a positive."""
        return self.queries - self.without_positive

    @property
    def trainable_far(self) -> int:
        """Return the queries with a positive that is farther than 1 m."""
        return self.queries - self.without_far_positive

    def __str__(self) -> str:
        return (
            f'{self.database} database images at {self.database_positions} positions, '
            f'{self.queries} queries at {self.query_positions}; {self.trainable} queries have a '
            f'positive, {self.trainable_far} one farther than 1 m; worst nearest neighbour '
            f'{self.worst_nearest_m:.3f} m; {self.mean_right:.0f} right answers on average, '
            f'best possible recall {100 * self.ceiling:.1f} %'
        )


def self_check(dataset: PlaceDataset) -> SelfCheck:
    """Measure a dataset without looking at its images.

    :raises InputError: a position is not finite, not in metres, or a list is empty or double.
    """
    check_lists(dataset)
    nearest = cKDTree(dataset.database.xy_m).query(dataset.queries.xy_m)[0]
    right = [len(row) for row in dataset.right()]
    positives = dataset.positives()
    far = dataset.positives(beyond_m=1.0)
    return SelfCheck(
        database=len(dataset.database),
        queries=len(dataset.queries),
        database_positions=len(np.unique(dataset.database.xy_m, axis=0)),
        query_positions=len(np.unique(dataset.queries.xy_m, axis=0)),
        without_positive=sum(len(row) == 0 for row in positives),
        without_far_positive=sum(len(row) == 0 for row in far),
        worst_nearest_m=float(nearest.max()),
        mean_right=float(np.mean(right)),
        ceiling=float(np.mean([n > 0 for n in right])),
    )


def check_lists(dataset: PlaceDataset) -> None:
    """Raise where the lists cannot be right, before anything is computed.

    :raises InputError: a list is empty, an image is listed twice, a position is not finite or not
        metric.
    """
    for kind, images in (('database', dataset.database), ('queries', dataset.queries)):
        if not len(images):
            raise InputError(f'{dataset.name}: the list of {kind} is empty')
        bad = np.flatnonzero(~np.isfinite(images.xy_m).all(axis=1))
        if len(bad):
            raise InputError(
                f'{dataset.name}: position of {images.paths[bad[0]].name!r} is '
                f'{images.xy_m[bad[0]].tolist()} ({len(bad)} such in {kind}): correct or remove it'
            )
        _check_double(dataset.name, kind, images.paths)
    xy_m = np.concatenate([dataset.database.xy_m, dataset.queries.xy_m])
    span = float(np.ptp(xy_m, axis=0).max())
    if span > LARGEST_SPAN_M:
        raise InputError(
            f'{dataset.name}: positions span {span:.3g} m: they must be east and north in metres'
        )
    looks_like_degrees = (np.abs(xy_m) <= [180, 90]).all() and 0 < span < 1
    if looks_like_degrees and len(np.unique(xy_m, axis=0)) > 2:
        raise InputError(
            f'{dataset.name}: all positions lie within {span:.3g} m and look like degrees of '
            'longitude and latitude: give east and north in metres'
        )


def _check_double(name: str, kind: str, paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            raise InputError(f'{name}: {path.name!r} is listed twice in {kind}: remove one row')
        seen.add(path)


def check_files(dataset: PlaceDataset) -> None:
    """Raise if an image file is missing, or is a query and a database image at once.

    :raises InputError: with the number of such files and the first of them.
    """
    paths = dataset.database.paths + dataset.queries.paths
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f'{dataset.name}: {len(missing)} of {len(paths)} images are missing, the first is '
            f'{str(missing[0])!r}: check the image folder'
        )
    # Tokyo Time Machine asks with database images: equal stamps keep each from finding itself.
    both = set(dataset.database.paths) & set(dataset.queries.paths)
    if both and not dataset.same_stamp_is_trivial:
        raise InputError(
            f'{dataset.name}: {len(both)} images are queries and database images, such as '
            f'{str(min(both))!r}: each would find itself'
        )
