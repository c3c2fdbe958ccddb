# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decoded images at the network's size, from files or from a memory map made once.

The policies 'max_side' and 'none' give images of several sizes. Models are measured on them as
they are deployed; training takes all images at one size (``at_one_size``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import hashlib
import json
import logging
from pathlib import Path
import shutil
from typing import Any, Optional, Protocol, Union

import numpy as np

from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.errors import InputError
from netvlad_ros.image_files import read_rgb
from netvlad_ros.training.array_file import new_array_file
from netvlad_ros.training.distributed import Workers
from netvlad_ros.training.places import IntArray
from netvlad_ros.types import FloatArray, UInt8Array

_log = logging.getLogger(__name__)

Progress = Callable[..., Iterator[Any]]
Indices = Union[Sequence[int], IntArray]

# More unreadable images than this share mean a wrong folder or a broken copy, not a few bad files.
MOST_UNREADABLE = 0.05


def no_progress(
    iterable: Iterable[Any], total: Optional[int] = None, unit: str = 'it', description: str = ''
) -> Iterator[Any]:
    """Yield from the iterable without a bar."""
    yield from iterable


class ImageSource(Protocol):
    """Images by number, at the size of the network's input."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> Any:
        """Return (n, H, W, 3) uint8 RGB, or a list of n (H, W, 3) whose sizes differ."""
        ...


def by_size(batch: Any) -> Iterator[tuple[IntArray, UInt8Array]]:
    """Yield what ``ImageSource.batch`` returned as arrays of one size.

    :returns: the (m,) places of images in the batch, and the (m, H, W, 3) images.
    """
    if isinstance(batch, np.ndarray):
        yield np.arange(len(batch)), batch
        return
    shapes = [image.shape for image in batch]
    for shape in dict.fromkeys(shapes):
        places = np.flatnonzero([other == shape for other in shapes])
        yield places, np.stack([batch[place] for place in places])


def at_one_size(policy: InputPolicy) -> InputPolicy:
    """Return the policy with every image resized to ``height`` x ``width``, as training needs."""
    return replace(policy, resize='fixed')


def size_note(policy: InputPolicy) -> str:
    """Return in one line what training at one size changes, '' if the policy has one size."""
    if policy.resize == 'fixed':
        return ''
    return (
        f'images are trained and judged at {policy.width}x{policy.height}, which changes their '
        f"aspect ratio; the model's own resize is {policy.resize!r}: netvlad test uses that one"
    )


class ImageFiles:
    """Images decoded from their files by a few threads; OpenCV lets go of the interpreter lock.

    :param paths: the files.
    :param policy: resizes each image, as the deployed model does.
    """

    def __init__(self, paths: Sequence[Path], policy: InputPolicy, threads: int = 2) -> None:
        self.paths = paths
        self.policy = policy
        self._pool = ThreadPoolExecutor(threads)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Indices) -> Union[UInt8Array, list[UInt8Array]]:
        """Return (n, H, W, 3) uint8 RGB, or a list of n (H, W, 3) whose sizes differ.

        :raises InputError: an image cannot be read.
        """
        images = list(self._pool.map(self._one, indices))
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def _one(self, index: int) -> UInt8Array:
        return self.policy.resize_image(self._read(index))

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
    """Images decoded and resized once into a memory map, reused by later runs of the same list.

    Under ``torchrun`` the first process makes it and the others wait.

    :raises InputError: the images have several sizes, or the disk is full.
    """

    def __init__(
        self, files: ImageFiles, folder: Path, progress: Progress = no_progress
    ) -> None:
        if files.policy.resize != 'fixed':
            raise InputError(
                f"the model's resize is {files.policy.resize!r}, an image cache holds images of "
                'one size: leave out --image-cache'
            )
        file = _map_file(files, folder)
        Workers.joined().make_once(file, lambda: _write_images(files, file, progress))
        self._images = np.load(file, mmap_mode='r')

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Indices) -> UInt8Array:
        """Return (n, H, W, 3) uint8 RGB."""
        return np.asarray(self._images[np.asarray(indices, dtype=np.int64)])


def kept_decoded(
    files: ImageFiles, folder: Path, progress: Progress = no_progress
) -> ImageSource:
    """Return images that are read many times as an ``ImageMap``, if the disk has room for two.

    Decoding and resizing cost a small network's refresh of the cache a tenth of its speed.

    :param files: of one size.
    """
    file = _map_file(files, folder)
    needed = len(files) * files.policy.height * files.policy.width * 3
    existing = next(parent for parent in file.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    workers = Workers.joined()
    # The first process decides: for the others its file has already changed what is free.
    fits = workers.sum(float(workers.is_first and (file.is_file() or 2 * needed <= free)))
    if fits:
        return ImageMap(files, folder, progress)
    if workers.is_first:
        _log.warning(
            '%d images are decoded again whenever they are read: decoded they take %.1f GB, and '
            '%s has %.1f GB free; --image-cache DIR keeps them on another disk',
            len(files), needed / 1e9, existing, free / 1e9,
        )  # fmt: skip
    return files


def _write_images(files: ImageFiles, file: Path, progress: Progress) -> None:
    """Write all images to a file, which appears when it is complete."""
    partial = file.with_suffix('.partial')
    shape = (len(files), files.policy.height, files.policy.width, 3)
    mapped = new_array_file(partial, np.uint8, shape)
    for start in progress(range(0, len(files), 32), unit='batch', description='images'):
        indices = range(start, min(start + 32, len(files)))
        mapped[indices.start : indices.stop] = files.batch(indices)
    mapped.flush()
    partial.replace(file)


def _map_file(files: ImageFiles, folder: Path) -> Path:
    size = f'{files.policy.width}x{files.policy.height}'
    return folder / f'images-{size}-{files_hash(files.paths)}.npy'


def files_hash(paths: Sequence[Path]) -> str:
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
