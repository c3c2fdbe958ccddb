# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that are folders: a sequence with frames.csv, or images with a TUM trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import csv
from decimal import Decimal, InvalidOperation
import logging
from pathlib import Path
import re
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import numpy as np
import yaml

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import DAMAGED_IMAGE, SkipCounts, usable_camera
from netvlad_ros.evaluation.truth import (
    GroundTruth,
    ListedRevisits,
    PoseTrack,
)
from netvlad_ros.geometry import pose_from_xyz_quat
from netvlad_ros.image_files import is_image
from netvlad_ros.image_messages import image_from_message
from netvlad_ros.types import Camera, Float32Array, Frame, UInt8Array

_log = logging.getLogger(__name__)

_NS_PER_S = Decimal(1_000_000_000)
_NS_DIGITS = 16
_MAX_STAMP_NS = 2**63 - 1
# Written in the header of a trajectory whose poses are those of a base, not of a camera.
_BASE_MARK = 'T_world_base'


def stamp_ns_from_text(text: str, where: str) -> int:
    """Return nanoseconds, exactly, from seconds or from nanoseconds in decimal digits.

    An integer of 16 or more digits is nanoseconds, as in EuRoC; anything else is seconds.

    :param where: file, row or image, for the message of an error.
    :raises InputError: the text is not a finite number, or past what int64 nanoseconds hold.
    """
    text = text.strip()
    try:
        # Python takes '1_25' for 125; in the name of an image it is something else.
        value = Decimal('' if '_' in text else text)
    except InvalidOperation:
        value = Decimal('nan')
    if not value.is_finite():
        raise InputError(f'{where}: {text!r} is not a stamp in seconds, nor in nanoseconds')
    # A value of 10^15 is nanoseconds in any notation: as seconds it is 30 million years.
    in_ns = value.adjusted() >= _NS_DIGITS - 1 or (text.isdecimal() and len(text) >= _NS_DIGITS)
    stamp_ns = value if in_ns else value * _NS_PER_S
    if not -_MAX_STAMP_NS <= stamp_ns <= _MAX_STAMP_NS:
        raise InputError(
            f'{where}: {text!r} is past int64 nanoseconds: give seconds (1700000000.25), or '
            'nanoseconds in 16 to 19 digits'
        )
    return int(stamp_ns.to_integral_value())


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
    """Return the trajectory of a TUM file (``stamp tx ty tz qx qy qz qw``).

    The stamp is read as ``stamp_ns_from_text`` does. Poses are those of the camera's optical
    frame, as in TUM RGB-D, unless a comment in the file says ``T_world_base``.

    :raises InputError: the file is missing or a row is broken.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path} cannot be read: {error}') from None
    stamps_ns, poses = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        stamp, *rest = line.split()
        try:
            values = [float(value) for value in rest]
        except ValueError:
            values = []
        if len(values) != 7:
            raise InputError(f'{path}:{number}: expected 8 numbers, got {line.strip()!r}')
        stamps_ns.append(stamp_ns_from_text(stamp, f'{path}:{number}'))
        try:
            poses.append(pose_from_xyz_quat(values[:3], values[3:]))
        except InputError as error:
            raise InputError(f'{path}:{number}: {error}') from None
    if not poses:
        raise InputError(f'{path} holds no pose')
    comments = ' '.join(line for line in lines if line.lstrip().startswith('#'))
    order = np.argsort(stamps_ns, kind='stable')
    return PoseTrack(
        np.asarray(stamps_ns, dtype=np.int64)[order],
        np.stack(poses)[order],
        'base' if _BASE_MARK in comments else 'camera',
    )


def read_camera_info(path: Path) -> Camera:
    """Return the camera of a ROS calibration file.

    :raises InputError: the file is damaged or lacks a field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
        K = np.asarray(data['camera_matrix']['data'], dtype=np.float64).reshape(3, 3)
        coefficients = data.get('distortion_coefficients', {}).get('data', [])
        camera = Camera(
            name=str(data.get('camera_name', 'camera')),
            size_wh=(int(data['image_width']), int(data['image_height'])),
            K=K,
            distortion_model=str(data.get('distortion_model', '')),
            distortion=np.asarray(coefficients, dtype=np.float64),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'{path} is not a camera calibration: {error!r}') from None
    return usable_camera(camera, path)


class _FolderSource:
    """Images and depth by path, with what is common to both kinds of folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.topics = None
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
                self.skipped.add(DAMAGED_IMAGE, str(error))
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

    Frames are taken in order of their stamps. revisits.csv names them by their ``index``, or by
    the number of their row, from 0, where frames.csv has no such column.

    :param poses: true poses in place of groundtruth.txt.
    :raises InputError: a file is missing or damaged.
    """

    def __init__(self, path: Path, poses: Optional[PoseTrack] = None) -> None:
        super().__init__(path)
        self._read_settings()
        self._read_frames()
        poses_path, revisits_path = path / 'groundtruth.txt', path / 'revisits.csv'
        if poses is None and poses_path.is_file():
            poses = read_tum(poses_path)
        self.ground_truth = GroundTruth(
            poses=poses,
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
        listed = []
        for position, (number, row) in enumerate(_csv_rows(path, ('image', 'stamp_s'))):
            stamp_ns = stamp_ns_from_text(row['stamp_s'], f'{path}:{number}')
            depth = (row.get('depth') or '').strip()
            depth_path = self.path / depth if depth else None
            index = (row.get('index') or str(position)).strip()
            listed.append((stamp_ns, self.path / row['image'].strip(), depth_path, index))
        if not listed:
            raise InputError(f'{path} lists no frame')
        in_time = sorted(listed, key=lambda row: row[0])
        if in_time != listed:
            _log.warning('%s is not in order of its stamps: frames are taken in order', path)
            listed = in_time
        self._rows = [row[:3] for row in listed]
        self._indices = [row[3] for row in listed]

    def _read_revisits(self, path: Path) -> ListedRevisits:
        columns = ('query_index', 'match_indices', 'ignore_indices')
        positions = self._positions()
        matches: dict[int, frozenset[int]] = {}
        ignores: dict[int, frozenset[int]] = {}
        for number, row in _csv_rows(path, columns):
            try:
                named = {
                    column: [positions[int(index)] for index in row[column].split()]
                    for column in columns
                }
                (query,) = named['query_index']
                matches[query] = matches.get(query, frozenset()) | {*named['match_indices']}
                ignores[query] = ignores.get(query, frozenset()) | {*named['ignore_indices']}
            except ValueError:
                raise InputError(
                    f'{path}:{number}: indices must be whole numbers: {row!r}'
                ) from None
            except KeyError as error:
                raise InputError(
                    f'{path}:{number}: frame {error} is not in frames.csv, which lists frames '
                    f'{min(positions)} to {max(positions)}'
                ) from None
        stamps_ns = np.asarray([row[0] for row in self._rows], dtype=np.int64)
        return ListedRevisits(stamps_ns, matches, ignores)

    def _positions(self) -> dict[int, int]:
        """Return where in order of time the frame of each index is."""
        positions: dict[int, int] = {}
        for position, text in enumerate(self._indices):
            try:
                index = int(text)
            except ValueError:
                index = -1
            if index < 0 or index in positions:
                raise InputError(
                    f'{self.path / "frames.csv"}: index {text!r} is there twice or is no whole '
                    'number from 0, so revisits.csv cannot name its frame'
                )
            positions[index] = position
        return positions


class ImageFolderSource(_FolderSource):
    """Images named by their stamp, with a TUM trajectory as ground truth.

    Images whose names are no stamps, or most of them stamps outside the trajectory (a counter,
    as in KITTI), are paired with the poses in order, if there are as many.

    :raises InputError: names and poses do not fit.
    """

    def __init__(self, path: Path, poses: PoseTrack) -> None:
        super().__init__(path)
        self.ground_truth = GroundTruth(poses=poses)
        images = sorted((p for p in path.iterdir() if is_image(p)), key=_in_counting_order)
        self._rows = [(stamp_ns, image, None) for stamp_ns, image in _stamped(images, poses)]
        if (path / 'camera_info.yaml').is_file():
            self.camera = read_camera_info(path / 'camera_info.yaml')


def _in_counting_order(path: Path) -> tuple[list[str], list[int], str]:
    """Return what puts img_2 before img_10."""
    text, numbers = re.split(r'\d+', path.stem), re.findall(r'\d+', path.stem)
    return text, [int(number) for number in numbers], path.name


def _is_counter(images: list[Path]) -> bool:
    """Return whether the names are 0, 1, 2, ... or 1, 2, 3, ..., with zeros before or not."""
    if not all(image.stem.isdecimal() for image in images):
        return False
    numbers = sorted(int(image.stem) for image in images)
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(images)))


def _stamped(images: list[Path], poses: PoseTrack) -> list[tuple[int, Path]]:
    """Return the images in order of time with their stamps in nanoseconds."""
    first_ns, last_ns = int(poses.stamps_ns[0]), int(poses.stamps_ns[-1])
    if len(images) == len(poses.stamps_ns) and _is_counter(images):
        return list(zip(poses.stamps_ns.tolist(), images, strict=True))
    try:
        named = sorted((stamp_ns_from_text(image.stem, str(image)), image) for image in images)
        images = [image for _, image in named]
        inside = sum(first_ns <= stamp_ns <= last_ns for stamp_ns, _ in named)
        why = (
            f'no image (the first is {images[0]}) lies in the time of the poses, '
            f'{first_ns / 1e9:.3f} to {last_ns / 1e9:.3f} s'
        )
    except InputError as error:
        named, inside, why = [], 0, str(error)
    # A counter from 0 can begin in the time of poses that begin at 0, but soon leaves it.
    if 2 * inside < len(images) and len(images) == len(poses.stamps_ns):
        return list(zip(poses.stamps_ns.tolist(), images, strict=True))
    if not inside:
        raise InputError(
            f'{why}, and {len(images)} images do not pair with {len(poses.stamps_ns)} poses in '
            'order: name the images by their stamps, or give one pose for each'
        )
    return named


def _csv_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the number of the line and the values of each row that is not empty.

    :raises InputError: the file cannot be read, or a row lacks one of ``columns``.
    """
    rows = []
    try:
        # Excel begins a file with a byte order mark.
        with path.open(encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f'{path} has no column {missing[0]!r}')
            for row in reader:
                missing = [name for name in columns if row[name] is None]
                if missing:
                    raise InputError(f'{path}:{reader.line_num}: no value for {missing[0]!r}')
                rows.append((reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'{path} cannot be read: {error}') from None
    return [(number, row) for number, row in rows if row[columns[0]]]
