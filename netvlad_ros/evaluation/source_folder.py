# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that are folders: a sequence with frames.csv, or images with a TUM trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import numpy as np
import yaml

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import IMAGE_SUFFIXES, SkipCounts
from netvlad_ros.evaluation.truth import (
    GroundTruth,
    ListedRevisits,
    PoseTrack,
    track_from_rows,
)
from netvlad_ros.image_messages import image_from_message
from netvlad_ros.types import Camera, Float32Array, Frame, UInt8Array

_NS_PER_S = Decimal(1_000_000_000)
# Written in the header of a trajectory whose poses are those of a base, not of a camera.
_BASE_MARK = 'T_world_base'


def stamp_ns_from_text(text: str, where: str) -> int:
    """Return nanoseconds from seconds in decimal digits, exactly.

    :raises InputError: the text is not a finite number.
    """
    try:
        return int((Decimal(text.strip()) * _NS_PER_S).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        raise InputError(f'{where}: {text!r} is not a stamp in seconds') from None


def read_image_rgb(path: Path) -> UInt8Array:
    """Return (H, W, 3) uint8 RGB.

    :raises InputError: the file is missing or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}') from None
    try:
        return image_from_message(SimpleNamespace(format=path.suffix, data=data))
    except InputError as error:
        raise InputError(f'{path}: {error}') from None


def read_depth_m(path: Path, units_per_m: float) -> Float32Array:
    """Return (H, W) float32 metres from a 16-bit PNG, 0 where unknown.

    :raises InputError: the file is missing or damaged.
    """
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if depth is None or depth.ndim != 2:
        raise InputError(f'{path} is not a depth image of one channel')
    return np.asarray(depth, dtype=np.float32) / np.float32(units_per_m)


def read_tum(path: Path) -> PoseTrack:
    """Return the trajectory of a TUM file (``stamp_s tx ty tz qx qy qz qw``).

    Poses are those of the camera's optical frame, as in TUM RGB-D, unless a comment in the file
    says ``T_world_base``.

    :raises InputError: the file is missing or a row is broken.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path} cannot be read: {error}') from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        try:
            values = [float(value) for value in line.split()]
        except ValueError:
            values = []
        if len(values) != 8:
            raise InputError(f'{path}:{number}: expected 8 numbers, got {line.strip()!r}')
        rows.append(values)
    comments = ' '.join(line for line in lines if line.lstrip().startswith('#'))
    return track_from_rows(rows, 'base' if _BASE_MARK in comments else 'camera', str(path))


def read_camera_info(path: Path) -> Camera:
    """Return the camera of a ROS calibration file.

    :raises InputError: the file is damaged or lacks a field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        K = np.asarray(data['camera_matrix']['data'], dtype=np.float64).reshape(3, 3)
        coefficients = data.get('distortion_coefficients', {}).get('data', [])
        return Camera(
            name=str(data.get('camera_name', 'camera')),
            size_wh=(int(data['image_width']), int(data['image_height'])),
            K=K,
            distortion_model=str(data.get('distortion_model', '')),
            distortion=np.asarray(coefficients, dtype=np.float64),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'{path} is not a camera calibration: {error!r}') from None


class _FolderSource:
    """Images and depth by path, with what is common to both kinds of folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.skipped = SkipCounts()
        self.protocol: Mapping[str, Any] = {}
        self.camera = Camera()
        self.ground_truth = GroundTruth()
        self._depth_units_per_m = 1000.0
        # stamp_ns, image, depth
        self._rows: list[tuple[int, Path, Optional[Path]]] = []

    @property
    def frame_count(self) -> int:
        """Number of images listed."""
        return len(self._rows)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order; a damaged image is counted and left out."""
        self.skipped = SkipCounts()
        for stamp_ns, image_path, depth_path in self._rows:
            try:
                image_rgb = read_image_rgb(image_path)
            except InputError as error:
                self.skipped.add('damaged image', str(error))
                continue
            depth_m = None
            if depth_path is not None:
                try:
                    depth_m = read_depth_m(depth_path, self._depth_units_per_m)
                except InputError as error:
                    self.skipped.add('damaged depth (image kept)', str(error))
            yield Frame(stamp_ns, image_rgb, self.camera, depth_m=depth_m)


class SequenceSource(_FolderSource):
    """A folder with frames.csv, and revisits.csv or groundtruth.txt or both.

    :raises InputError: a file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._read_settings()
        self._read_frames()
        poses_path, revisits_path = path / 'groundtruth.txt', path / 'revisits.csv'
        self.ground_truth = GroundTruth(
            poses=read_tum(poses_path) if poses_path.is_file() else None,
            listed=self._read_revisits(revisits_path) if revisits_path.is_file() else None,
        )
        if (path / 'camera_info.yaml').is_file():
            self.camera = read_camera_info(path / 'camera_info.yaml')

    def _read_settings(self) -> None:
        path = self.path / 'sequence.yaml'
        if not path.is_file():
            return
        try:
            settings = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
            self.protocol = dict(settings.get('protocol') or {})
            self._depth_units_per_m = float(settings.get('depth_units_per_m', 1000.0))
        except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f'{path} is damaged: {error!r}') from None

    def _read_frames(self) -> None:
        path = self.path / 'frames.csv'
        for number, row in enumerate(_csv_rows(path, ('image', 'stamp_s')), start=2):
            stamp_ns = stamp_ns_from_text(row['stamp_s'], f'{path}:{number}')
            depth = (row.get('depth') or '').strip()
            depth_path = self.path / depth if depth else None
            self._rows.append((stamp_ns, self.path / row['image'].strip(), depth_path))
        if not self._rows:
            raise InputError(f'{path} lists no frame')

    def _read_revisits(self, path: Path) -> ListedRevisits:
        columns = ('query_index', 'match_indices', 'ignore_indices')
        matches, ignores = {}, {}
        for number, row in enumerate(_csv_rows(path, columns), start=2):
            try:
                query = int(row['query_index'])
                matches[query] = frozenset(int(i) for i in row['match_indices'].split())
                ignores[query] = frozenset(int(i) for i in row['ignore_indices'].split())
            except (ValueError, AttributeError):
                raise InputError(f'{path}:{number}: indices must be whole numbers') from None
        stamps_ns = np.asarray([row[0] for row in self._rows], dtype=np.int64)
        return ListedRevisits(stamps_ns, matches, ignores)


class ImageFolderSource(_FolderSource):
    """Images named by their stamp in seconds, with a TUM trajectory as ground truth.

    Images whose names are no stamps are paired with the poses in order, if there are as many.

    :raises InputError: names and poses do not fit.
    """

    def __init__(self, path: Path, poses: Path) -> None:
        super().__init__(path)
        track = read_tum(poses)
        self.ground_truth = GroundTruth(poses=track)
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        try:
            stamps_ns = [stamp_ns_from_text(image.stem, str(image)) for image in images]
            pairs = zip(stamps_ns, images, strict=True)
            self._rows = sorted((stamp_ns, image, None) for stamp_ns, image in pairs)
        except InputError as error:
            if len(images) != len(track.stamps_ns):
                raise InputError(
                    f'{error}, and {len(images)} images do not pair with '
                    f'{len(track.stamps_ns)} poses of {poses} in order'
                ) from None
            pairs = zip(track.stamps_ns, images, strict=True)
            self._rows = [(int(s), image, None) for s, image in pairs]
        if (path / 'camera_info.yaml').is_file():
            self.camera = read_camera_info(path / 'camera_info.yaml')


def _csv_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(encoding='utf-8', newline='') as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f'{path} has no column {missing[0]!r}')
            return [row for row in reader if row[columns[0]]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'{path} cannot be read: {error}') from None
