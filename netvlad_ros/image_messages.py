# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays, without ROS: the node and the bag reader share these functions.

A message is anything with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage, be it
of rclpy or of rosbags. Pixel formats are converted by cv_bridge where the caller has one, else
by rosbags-image; what neither checks is checked here: size, row padding, truncation.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import numpy as np
from rosbags.image import ImageError, image_to_cvimage

from netvlad_ros.errors import InputError
from netvlad_ros.types import Float32Array, UInt8Array

# Bytes per pixel of every encoding that is read as a picture.
ENCODINGS = {
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'mono16': 2, 'rgb16': 6, 'bgr16': 6,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'bayer_rggb16': 2, 'bayer_bggr16': 2, 'bayer_gbrg16': 2, 'bayer_grbg16': 2,
    'yuv422': 2, 'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2,
    '8UC1': 1, '8UC3': 3, '8UC4': 4, '16UC1': 2,
}  # fmt: skip

# OpenCV's type names say nothing of colour; ROS drivers use them for OpenCV's own order.
_GENERIC = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC1': 'mono16'}

_DEPTH_ENCODINGS: dict[str, np.dtype[Any]] = {
    '32FC1': np.dtype('f4'),
    '16UC1': np.dtype('u2'),
    'mono16': np.dtype('u2'),
}
_MILLIMETRE_M = np.float32(1e-3)
# The header that compressed_depth_image_transport writes before the PNG: the kind of compression,
# and the A and B that quantise the inverse depth of a 32FC1 image.
_COMPRESSED_DEPTH_HEADER = struct.Struct('<iff')


def image_from_message(message: Any, bridge: Optional[Any] = None) -> UInt8Array:
    """Return the picture of an Image or CompressedImage message.

    :param bridge: a ``cv_bridge.CvBridge``, or None to convert with rosbags-image.
    :returns: (H, W, 3) uint8 RGB, contiguous and writable.
    :raises InputError: the size is zero, data is missing or damaged, or the encoding is unknown.
    """
    if hasattr(message, 'format'):
        return _picture_from_compressed(message)
    if message.encoding not in ENCODINGS:
        raise InputError(
            f'image encoding is {message.encoding!r}, allowed: {", ".join(ENCODINGS)}'
        )
    rows = _packed_rows(message, ENCODINGS[message.encoding])
    packed = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=_GENERIC.get(message.encoding, message.encoding),
        is_bigendian=bool(message.is_bigendian),
        step=rows.shape[1],
        data=rows,
    )
    try:
        if bridge is not None:
            picture = bridge.imgmsg_to_cv2(packed, 'rgb8')
        else:
            picture = image_to_cvimage(packed, 'rgb8')
    except (ImageError, cv2.error, ValueError, TypeError) as error:
        raise InputError(
            f'{message.encoding!r} image of {message.width}x{message.height} '
            f'cannot be converted to rgb8: {error}'
        ) from error
    # A conversion that changes nothing returns the message's own memory.
    return np.array(picture, dtype=np.uint8, order='C', copy=True)


def depth_from_message(message: Any) -> Float32Array:
    """Return the depth of an Image message, or of a CompressedImage that holds a 16-bit PNG.

    :param message: encoding 32FC1 (metres) or 16UC1 (millimetres); a CompressedImage's format is
        one of compressed_depth_image_transport, or says nothing (millimetres).
    :returns: (H, W) float32 metres; 0 or NaN where the sensor saw nothing.
    :raises InputError: as ``image_from_message``.
    """
    if hasattr(message, 'format'):
        return _depth_from_compressed(message)
    if message.encoding not in _DEPTH_ENCODINGS:
        raise InputError(
            f'depth encoding is {message.encoding!r}, allowed: {", ".join(_DEPTH_ENCODINGS)}'
        )
    dtype = _DEPTH_ENCODINGS[message.encoding]
    rows = _packed_rows(message, dtype.itemsize)
    depth = rows.view(dtype.newbyteorder('>' if message.is_bigendian else '<'))
    if dtype.kind == 'f':
        return depth.astype(np.float32)
    return depth.astype(np.float32) * _MILLIMETRE_M


def _packed_rows(message: Any, bytes_per_pixel: int) -> UInt8Array:
    """Return the pixels as (H, W * bytes_per_pixel) uint8 without the padding of the rows."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height <= 0 or width <= 0:
        raise InputError(f'image is {width}x{height}, both sides must be positive')
    row_bytes = width * bytes_per_pixel
    if step < row_bytes:
        raise InputError(
            f'image step is {step} bytes, a row of {width} {message.encoding!r} pixels has '
            f'{row_bytes}'
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    # The last row need not be padded.
    needed = step * (height - 1) + row_bytes
    if data.size < needed:
        raise InputError(
            f'image is truncated: {data.size} bytes, {width}x{height} {message.encoding!r} with '
            f'step {step} needs {needed}'
        )
    if step == row_bytes:
        return data[:needed].reshape(height, row_bytes)
    rows = np.lib.stride_tricks.as_strided(data, (height, row_bytes), (step, 1), writeable=False)
    return np.ascontiguousarray(rows)


def _picture_from_compressed(message: Any) -> UInt8Array:
    if 'compressedDepth' in message.format:
        raise InputError(
            f'compressed image has format {message.format!r}, a depth image is not a picture'
        )
    # The stored pixels count, not an EXIF tag: camera_info describes the sensor.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = _decode(np.frombuffer(message.data, dtype=np.uint8), flags, message.format)
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _depth_from_compressed(message: Any) -> Float32Array:
    data, A, B = np.frombuffer(message.data, dtype=np.uint8), 0.0, 0.0
    is_transport = 'compressedDepth' in message.format
    if is_transport:
        size = _COMPRESSED_DEPTH_HEADER.size
        if data.size < size:
            raise InputError(f'compressed depth has {data.size} bytes, its header alone {size}')
        _, A, B = _COMPRESSED_DEPTH_HEADER.unpack(data[:size].tobytes())
        data = data[size:]
    depth = _decode(data, cv2.IMREAD_UNCHANGED, message.format)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(
            f'compressed depth has format {message.format!r} and decodes to {depth.dtype} '
            f'{depth.shape}, allowed: 16-bit single-channel PNG'
        )
    value = np.asarray(depth, dtype=np.float32)
    if not (is_transport and message.format.startswith('32FC1')):
        return value * _MILLIMETRE_M
    # The smallest value stands for the largest depth, A / (1 - B).
    if not (0.0 < A < np.inf and -np.inf < B < 1.0):
        raise InputError(f'compressed depth has A {A:g} and B {B:g}, allowed: A > 0, B < 1')
    metres = np.float32(A) / (np.maximum(value, 1) - np.float32(B))
    metres[value == 0] = 0
    return metres


def _decode(data: UInt8Array, flags: int, kind: str) -> Any:
    """Decode a JPEG, PNG or other file that OpenCV knows, and refuse one that is cut short."""
    head, tail = data[:8].tobytes(), data[-64:].tobytes().rstrip(b'\0')
    # OpenCV fills the missing part of a JPEG with gray instead of failing.
    cut_jpeg = head.startswith(b'\xff\xd8') and not tail.endswith(b'\xff\xd9')
    cut_png = head.startswith(b'\x89PNG') and b'IEND' not in tail
    image = None
    if data.size and not cut_jpeg and not cut_png:
        try:
            image = cv2.imdecode(data, flags)
        except cv2.error:
            image = None
    if image is None or image.size == 0:
        what = 'is cut short' if cut_jpeg or cut_png else 'cannot be decoded'
        raise InputError(
            f'compressed image of format {kind!r} {what} ({data.size} bytes starting with '
            f'{head[:4].hex()})'
        )
    return image
