# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decoded images at the network's size, from files or from a memory map made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Optional, Protocol, Union

import cv2
import numpy as np

from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.errors import InputError
from netvlad_ros.training.places import IntArray
from netvlad_ros.types import FloatArray, UInt8Array

_log = logging.getLogger(__name__)

Progress = Callable[..., Iterator[Any]]
Indices = Union[Sequence[int], IntArray]

# An image smaller than this on a side holds no place; resizing it up would only hide that.
SMALLEST_SIDE_PX = 16

# More unreadable images than this share mean a wrong folder or a broken copy, not a few bad files.
MOST_UNREADABLE = 0.05


def no_progress(
    iterable: Iterable[Any], total: Optional[int] = None, unit: str = 'it', description: str = ''
) -> Iterator[Any]:
    """Yield from the iterable without a bar."""
    yield from iterable


def read_rgb(path: Path) -> UInt8Array:
    """Return an image file as (H, W, 3) uint8 RGB; gray is repeated, an alpha channel dropped.

    :raises InputError: the file is missing, damaged or too small.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f'cannot read image {str(path)!r}: {error}') from error
    # OpenCV fills what a cut JPEG lacks with gray and does not say so.
    if data[:2].tobytes() == b'\xff\xd8' and b'\xff\xd9' not in data[-64:].tobytes():
        raise InputError(f'image {str(path)!r} is cut off: copy it again')
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise InputError(f'image {str(path)!r} is damaged or of an unknown format')
    if min(image.shape[:2]) < SMALLEST_SIDE_PX:
        raise InputError(
            f'image {str(path)!r} is {image.shape[1]}x{image.shape[0]}, the smallest side allowed '
            f'is {SMALLEST_SIDE_PX} px'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


class ImageSource(Protocol):
    """Images by number, at the size of the network's input."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> Any:
        """Return (n, H, W, 3) uint8 RGB."""
        ...


class ImageFiles:
    """Images decoded from their files by a few threads; OpenCV lets go of the interpreter lock.

    :param paths: the files.
    :param policy: input size; a policy without a fixed size is taken at its default one.
    """

    def __init__(self, paths: Sequence[Path], policy: InputPolicy, threads: int = 2) -> None:
        self.paths = paths
        self.size_wh = (policy.width, policy.height)
        self._pool = ThreadPoolExecutor(threads)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Indices) -> UInt8Array:
        """Return (n, H, W, 3) uint8 RGB.

        :raises InputError: an image cannot be read.
        """
        return np.stack(list(self._pool.map(self._one, indices)))

    def _one(self, index: int) -> UInt8Array:
        image = self._read(index)
        shrinks = image.shape[0] * image.shape[1] > self.size_wh[0] * self.size_wh[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        if image.shape[1::-1] == self.size_wh:
            return image
        return np.asarray(cv2.resize(image, self.size_wh, interpolation=method), dtype=np.uint8)

    def _read(self, index: int) -> UInt8Array:
        return read_rgb(self.paths[index])


class CroppedFiles(ImageFiles):
    """Likewise of a part of each image.

    :param boxes_xyxy: (N, 4) pixels from the left and the top; cut to the image.
    """

    def __init__(
        self, paths: Sequence[Path], policy: InputPolicy, boxes_xyxy: FloatArray
    ) -> None:
        super().__init__(paths, policy)
        self._boxes_xyxy = boxes_xyxy

    def _read(self, index: int) -> UInt8Array:
        image = super()._read(index)
        left, top, right, bottom = np.round(self._boxes_xyxy[index]).astype(int)
        part = image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if min(part.shape[:2]) < 1:
            raise InputError(
                f'box {self._boxes_xyxy[index].tolist()} lies outside image '
                f'{str(self.paths[index])!r} of {image.shape[1]}x{image.shape[0]}'
            )
        return part


class ImageMap:
    """Images decoded and resized once into a memory map, reused by later runs of the same list."""

    def __init__(
        self, files: ImageFiles, folder: Path, progress: Progress = no_progress
    ) -> None:
        width, height = files.size_wh
        shape = (len(files), height, width, 3)
        self._file = folder / f'images-{width}x{height}-{_list_hash(files.paths)}.npy'
        if not self._file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix('.partial')
            mapped = np.lib.format.open_memmap(partial, 'w+', np.uint8, shape)
            for start in progress(range(0, len(files), 32), unit='batch', description='images'):
                indices = range(start, min(start + 32, len(files)))
                mapped[indices.start : indices.stop] = files.batch(indices)
            mapped.flush()
            partial.replace(self._file)
        self._images = np.load(self._file, mmap_mode='r')

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Indices) -> UInt8Array:
        """Return (n, H, W, 3) uint8 RGB."""
        return np.asarray(self._images[np.asarray(indices, dtype=np.int64)])


def _list_hash(paths: Sequence[Path]) -> str:
    """Return 12 hex digits over names, sizes and times of the files."""
    entries = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:12]


def unreadable(paths: Sequence[Path], progress: Progress = no_progress) -> list[int]:
    """Return the indices of images that cannot be used, each named in the log.

    :raises InputError: more than ``MOST_UNREADABLE`` of them.
    """

    def problem(path: Path) -> str:
        try:
            read_rgb(path)
        except InputError as error:
            return str(error)
        return ''

    bad: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        checked = progress(
            pool.map(problem, paths), total=len(paths), unit='image', description='checking'
        )
        for index, text in enumerate(checked):
            if text:
                bad.append(index)
                _log.warning('skipped: %s', text)
    if len(bad) > MOST_UNREADABLE * len(paths):
        raise InputError(
            f'{len(bad)} of {len(paths)} images cannot be used, the first is '
            f'{str(paths[bad[0]])!r}: check the folder or copy the data again'
        )
    return bad
