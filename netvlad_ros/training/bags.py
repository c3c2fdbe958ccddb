# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A recording with poses as a dataset of places: the poses are weak labels.

Images are written to a folder once, because training reads them in random order. The first 70
percent of the frames train and the rest is held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.training.places import PlaceDataset, PlaceImages
from netvlad_ros.types import Frame

TRAIN_SHARE = 0.7

# Frames nearer than this to the last kept one, and turned less, add nothing.
STEP_M = 0.5
STEP_DEG = 15.0

# A quarter of the images asks, the rest is searched.
_QUERY_EVERY = 4

_JPEG_QUALITY = 95


def read_bag(
    path: Path, split: str, root: Optional[Path] = None, radius_m: float = 5.0
) -> PlaceDataset:
    """Return the frames of a recording that have a pose, thinned to one each half metre.

    True poses go before odometry where the recording has them.

    :param split: 'train' or 'val' by time, or 'all'.
    :param root: folder for the images; by default ``NAME_images`` beside the recording.
    :param radius_m: images within this distance and 35 degrees show one place.
    :raises InputError: the recording has no pose, or too few frames.
    """
    from netvlad_ros.evaluation.sources import open_source

    if split not in ('train', 'val', 'all'):
        raise InputError(f'split of a recording is {split!r}, allowed: train, val, all')
    root = root or path.with_name(f'{path.stem}_images')
    source = open_source(path)
    track = source.ground_truth.poses
    paths: list[Path] = []
    rows: list[tuple[float, float, float, float]] = []
    last: Optional[tuple[float, float, float, float]] = None
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
        row = (float(T[0, 3]), float(T[1, 3]), heading_deg, frame.stamp_ns / 1e9)
        if last is not None and not _moved(row, last):
            continue
        last = row
        paths.append(_written(root, frame))
        rows.append(row)
    if len(rows) < 2 * _QUERY_EVERY:
        raise InputError(
            f'{str(path)!r} gives {len(rows)} images with a pose, {2 * _QUERY_EVERY} are needed: '
            'does it hold odometry or true poses?'
        )
    values = np.array(rows)
    images = PlaceImages(
        tuple(paths), values[:, :2].copy(), values[:, 3].copy(), heading_deg=values[:, 2].copy()
    )
    cut = round(TRAIN_SHARE * len(rows))
    images = images.take({
        'train': np.arange(cut), 'val': np.arange(cut, len(rows)), 'all': np.arange(len(rows)),
    }[split])  # fmt: skip
    asks = np.arange(len(images)) % _QUERY_EVERY == _QUERY_EVERY - 1
    return PlaceDataset(
        name=path.stem,
        database=images.take(np.flatnonzero(~asks)),
        queries=images.take(np.flatnonzero(asks)),
        split=split,
        true_radius_m=radius_m,
        positive_radius_m=radius_m,
        negative_radius_m=2.0 * radius_m,
    )


def _moved(
    row: tuple[float, float, float, float], last: tuple[float, float, float, float]
) -> bool:
    distance_m = float(np.hypot(row[0] - last[0], row[1] - last[1]))
    turn_deg = abs((row[2] - last[2] + 180.0) % 360.0 - 180.0)
    return distance_m >= STEP_M or turn_deg >= STEP_DEG


def _written(root: Path, frame: Frame) -> Path:
    """Return the frame's image file, written if it is not there yet."""
    path = root / f'{frame.stamp_ns}.jpg'
    if not path.is_file():
        root.mkdir(parents=True, exist_ok=True)
        bgr = cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
            raise InputError(f'cannot write {str(path)!r}')
    return path
