# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image files on disk: which files are images, and their pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
import re
from typing import Optional

import cv2
import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.types import UInt8Array

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.pgm', '.ppm')

# An image smaller than this on a side holds no place; resizing it up would only hide that.
SMALLEST_SIDE_PX = 16

# Since OpenCV 4.11; before, a second pass over the image swaps the colours.
_IMREAD_RGB: Optional[int] = getattr(cv2, 'IMREAD_COLOR_RGB', None)

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
# Markers with a segment after them, and the end: no stuffed 0xff, fill bytes, restarts or start.
_JPEG_MARKER = re.compile(rb'\xff[^\x00\x01\xd0-\xd8\xff]')


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def image_paths(given: Iterable[Path]) -> list[Path]:
    """Return the files, and the images in the folders at any depth, sorted within each folder.

    :raises InputError: one does not exist, or there is no image at all.
    """
    given, paths = list(given), []
    for path in given:
        if path.is_dir():
            paths += sorted(p for p in path.rglob('*') if is_image(p))
        elif path.is_file():
            paths.append(path)
        else:
            raise InputError(f'{str(path)!r} does not exist')
    if not paths:
        names = ', '.join(str(path) for path in given)
        raise InputError(f'no images ({", ".join(IMAGE_SUFFIXES)}) in {names}')
    return paths


def read_rgb(path: Path) -> UInt8Array:
    """Return an image file as (H, W, 3) uint8 RGB; gray is repeated, an alpha channel dropped.

    :raises InputError: the file is missing, damaged or too small.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f'cannot read image {str(path)!r}: {error}') from error
    # OpenCV fills what a cut JPEG lacks with gray and does not say so.
    if data.startswith(_JPEG_START) and not _has_jpeg_end(data):
        raise InputError(f'image {str(path)!r} is cut off: copy it again')
    image = _decode(data)
    if image is None:
        raise InputError(f'image {str(path)!r} is damaged, of an unknown format or too large')
    if min(image.shape[:2]) < SMALLEST_SIDE_PX:
        raise InputError(
            f'image {str(path)!r} is {image.shape[1]}x{image.shape[0]}, the smallest side allowed '
            f'is {SMALLEST_SIDE_PX} px'
        )
    return image


def _decode(data: bytes) -> Optional[UInt8Array]:
    """Return the (H, W, 3) RGB image of a file's content, turned as its EXIF says, or None."""
    if not data:
        return None
    encoded = np.frombuffer(data, np.uint8)
    flag = cv2.IMREAD_COLOR if _IMREAD_RGB is None else _IMREAD_RGB
    try:
        image = cv2.imdecode(encoded, flag)
    except cv2.error:  # more pixels than OpenCV allows
        return None
    if _IMREAD_RGB is not None:
        return None if image is None else np.asarray(image, dtype=np.uint8)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _has_jpeg_end(data: bytes) -> bool:
    """Tell whether a JPEG's own end is there, before whatever phones append to it.

    Segments are stepped over: the thumbnail in one of them has an end of its own.
    """
    at = len(_JPEG_START)
    while marker := _JPEG_MARKER.search(data, at):
        if marker.group() == _JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], 'big')
    return False
