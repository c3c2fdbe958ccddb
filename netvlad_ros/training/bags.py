# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A recording with poses as a dataset of places: the poses are weak labels.

Several recordings in one folder are one dataset. Whether two of them show the same places is not
known: pairs between them are neither alike nor different.

Images whose heights differ by more than a floor (``FLOOR_M``) show two places, however near they
are from above.

Images are written to a folder once, because training reads them in random order. Their names say
what they show, so that another recording of the same name and stamps does not find them.

The first part of the frames trains and the rest is held out, without those of a time gap between
the two, so that no held-out image has a neighbour in time among the training ones. Places that the
robot comes back to may be in both: they show what the model makes of this environment at another
time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import hashlib
import math
import os
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from netvlad_ros.config import setting, validate
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import is_recording, open_source
from netvlad_ros.training.places import (
    HEADING_DEG,
    LOOK_ALIKE_FROM_M,
    IntArray,
    PlaceDataset,
    PlaceImages,
)
from netvlad_ros.types import FloatArray, Frame

# Frames nearer than this to the last kept one, and turned less, add nothing.
STEP_M = 0.5
STEP_DEG = 15.0

# A quarter of the images asks, the rest is searched.
_QUERY_EVERY = 4

# Floors, and decks of car parks, are at least 2.5 m apart; on one of them the height that a robot
# knows of itself drifts less. A wide radius allows for a hill, as steep as few streets are.
FLOOR_M = 2.0
STEEPEST = 0.3

_JPEG_QUALITY = 95

# Position in metres, heading in degrees, stamp in seconds.
_Row = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class BagConfig:
    """What the poses of a recording say of its images, and which of them are held out."""

    radius_m: float = setting(
        5.0, 'Images within this distance show one place, beyond twice that two.',
        unit='m', minimum=0.01, maximum=1000.0,
    )
    angle_deg: float = setting(
        HEADING_DEG, 'Images of one place that look farther apart are not compared.',
        unit='deg', minimum=1.0, maximum=180.0,
    )
    train_share: float = setting(
        0.7, 'Share of the images, from the first on, that trains.', minimum=0.05, maximum=0.95
    )
    gap_s: float = setting(
        10.0, 'Time after the last training image before the first held-out one.',
        unit='s', minimum=0.0, maximum=1e6,
    )


def read_bag(
    path: Path, split: str, root: Optional[Path] = None, config: Optional[BagConfig] = None
) -> PlaceDataset:
    """Return the frames of a recording that have a pose, thinned to one each half metre.

    True poses go before odometry where the recording has them.

    :param split: 'train' or 'val' by time, or 'all'.
    :param root: folder for ``NAME_images``, which holds the images; by default the recording's.
    :raises InputError: the recording has no pose, or too few frames, or there is nowhere to write.
    """
    config = config or BagConfig()
    validate(config, 'bag.')
    if split not in ('train', 'val', 'all'):
        raise InputError(f'split of a recording is {split!r}, allowed: train, val, all')
    if path.name in ('', '..'):  # '.': the folder has a name all the same
        path = path.resolve()
    folder = (root or path.parent) / f'{path.name}_images'
    source = open_source(path)
    track = source.ground_truth.poses
    paths: list[Path] = []
    rows: list[_Row] = []
    last: Optional[_Row] = None
    for frame in source.frames():
        T = frame.T_odom_base
        axis = 0
        if track is not None:
            poses, known = track.at([frame.stamp_ns])
            T = poses[0] if known[0] else None
            axis = 0 if track.frame == 'base' else 2
        if T is None:
            continue
        heading_deg = float(np.degrees(np.arctan2(T[1, axis], T[0, axis])))
        x_m, y_m, z_m = (float(value) for value in T[:3, 3])
        row = (x_m, y_m, z_m, heading_deg, frame.stamp_ns / 1e9)
        if last is not None and not _moved(row, last):
            continue
        last = row
        paths.append(_written(folder, frame))
        rows.append(row)
    if len(rows) < 2 * _QUERY_EVERY:
        raise InputError(
            f'{str(path)!r} gives {len(rows)} images with a pose, {2 * _QUERY_EVERY} are needed: '
            'does it hold odometry or true poses?'
        )
    values = np.array(rows)
    images = PlaceImages(
        tuple(paths), values[:, :2].copy(), values[:, 4].copy(),
        heading_deg=values[:, 3].copy(),
        level=values[:, 2] / max(FLOOR_M, STEEPEST * config.radius_m),
    )  # fmt: skip
    images = images.take(_part(path, split, values[:, 4], config))
    asks = np.arange(len(images)) % _QUERY_EVERY == _QUERY_EVERY - 1
    return PlaceDataset(
        name=path.name,
        database=images.take(np.flatnonzero(~asks)),
        queries=images.take(np.flatnonzero(asks)),
        split=split,
        true_radius_m=config.radius_m,
        positive_radius_m=config.radius_m,
        negative_radius_m=2.0 * config.radius_m,
        same_heading_deg=config.angle_deg,
    )


def recordings_in(folder: Path) -> list[Path]:
    """Return the recordings right in a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_recording(path))


def read_bags(
    folder: Path, split: str, root: Optional[Path] = None, config: Optional[BagConfig] = None
) -> PlaceDataset:
    """Return all recordings right in a folder as one dataset, each with its own split by time.

    :raises InputError: as ``read_bag``.
    """
    parts = [read_bag(path, split, root, config) for path in recordings_in(folder)]
    shifts_m, east_m = [], 0.0
    for part in parts:
        xy_m = part.all_images().xy_m
        shifts_m.append(np.array([east_m, 0.0]) - xy_m.min(axis=0))
        east_m += float(np.ptp(xy_m[:, 0])) + 2 * LOOK_ALIKE_FROM_M
    database, queries = (
        _together([getattr(part, name) for part in parts], shifts_m)
        for name in ('database', 'queries')
    )
    return replace(parts[0], name=folder.resolve().name, database=database, queries=queries)


def _together(parts: list[PlaceImages], shifts_m: list[FloatArray]) -> PlaceImages:
    """Return lists of images as one; two far ones may show the same place."""
    stamps = [part.stamp for part in parts if part.stamp is not None]
    headings = [part.heading_deg for part in parts if part.heading_deg is not None]
    levels = [part.level for part in parts if part.level is not None]
    xy_m = np.concatenate([p.xy_m + shift for p, shift in zip(parts, shifts_m, strict=True)])
    return PlaceImages(
        paths=tuple(path for part in parts for path in part.paths),
        xy_m=xy_m,
        stamp=np.concatenate(stamps),
        look_alike=np.zeros(len(xy_m), dtype=np.int64),
        heading_deg=np.concatenate(headings),
        level=np.concatenate(levels),
    )


def _part(path: Path, split: str, stamp_s: FloatArray, config: BagConfig) -> IntArray:
    """Return the indices of the images of a split.

    :raises InputError: fewer than a few are left.
    """
    everything = np.arange(len(stamp_s))
    cut = round(config.train_share * len(stamp_s))
    chosen: IntArray = {
        'all': everything,
        'train': everything[:cut],
        'val': everything[cut:][stamp_s[cut:] >= stamp_s[cut - 1] + config.gap_s],
    }[split]
    if len(chosen) < _QUERY_EVERY:
        raise InputError(
            f'{str(path)!r}: {len(chosen)} of {len(stamp_s)} images are left for {split}, '
            f'{_QUERY_EVERY} are needed: train_share is {config.train_share:g}, gap_s is '
            f'{config.gap_s:g}, and the recording lasts {np.ptp(stamp_s):.1f} s'
        )
    return chosen


def _moved(row: _Row, last: _Row) -> bool:
    distance_m = math.dist(row[:3], last[:3])
    turn_deg = abs((row[3] - last[3] + 180.0) % 360.0 - 180.0)
    return distance_m >= STEP_M or turn_deg >= STEP_DEG


def _written(folder: Path, frame: Frame) -> Path:
    """Return the frame's image file, written if it is not there yet."""
    content = hashlib.sha256(frame.image_rgb.tobytes()).hexdigest()[:8]
    path = folder / f'{frame.stamp_ns}-{content}.jpg'
    if not path.is_file():
        bgr = cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
        # Whole or not at all; other processes of the run write the same.
        partial = path.with_suffix(f'.{os.getpid()}.partial')
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(jpeg.tobytes())
            partial.replace(path)
        except OSError as error:
            raise InputError(
                f'cannot write {str(path)!r}: {error}; --images DIR puts the images elsewhere'
            ) from error
    return path
