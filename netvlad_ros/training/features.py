# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Descriptors of many images in one batched pass, into memory or a float16 memory map."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.errors import InputError
from netvlad_ros.training.frozen import Forward, device_of, fast_forward, is_convolutional
from netvlad_ros.training.images import ImageSource, Progress, no_progress
from netvlad_ros.training.places import IntArray
from netvlad_ros.types import Float32Array

BATCH = 16

# Converting the network for the faster engine takes as long as some hundred images.
WORTH_COMPILING = 200


def describe(
    network: DescriptorNetwork,
    images: ImageSource,
    progress: Progress = no_progress,
    out: Optional[npt.NDArray[np.floating]] = None,
) -> Float32Array:
    """Return (N, dim) descriptors of all images, in the mode that the network is in.

    :param out: (N, dim) array or memory map to fill instead of a new float32 array.
    :raises InputError: a descriptor is not finite.
    """
    rows = np.empty((len(images), network.dim), np.float32) if out is None else out
    describe_rows(network, images, np.arange(len(images)), rows, progress, 'descriptors')
    return rows  # type: ignore[return-value]


def forward_for(network: nn.Module, images: ImageSource, count: int) -> Forward:
    """Return the fastest forward of a network for so many images.

    It is a snapshot: weights that change later do not reach it.
    """
    if count < WORTH_COMPILING:
        return network
    return fast_forward(network, torch.from_numpy(images.batch([0])).to(device_of(network)))


@torch.no_grad()
def describe_rows(
    network: nn.Module,
    images: ImageSource,
    indices: IntArray,
    out: npt.NDArray[np.floating],
    progress: Progress = no_progress,
    description: str = 'descriptors',
    packed: bool = False,
    forward: Optional[Forward] = None,
) -> None:
    """Compute the descriptors of some images into the rows of ``out`` with their indices.

    While one batch is computed the next one is decoded.

    :param packed: write to the first rows of ``out`` instead, in the order of ``indices``.
    :param forward: of ``forward_for``, where several calls share it.
    :raises InputError: a descriptor is not finite.
    """
    if not len(indices):
        return
    device = device_of(network)
    forward = forward or forward_for(network, images, len(indices))
    size = BATCH if is_convolutional(network) else 1
    parts = [indices[start : start + size] for start in range(0, len(indices), size)]
    start = 0
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(images.batch, parts[0])
        numbers = range(len(parts))
        for number in progress(numbers, len(parts), unit='batch', description=description):
            pixels = torch.from_numpy(waiting.result()).to(device)
            if number + 1 < len(parts):
                waiting = ahead.submit(images.batch, parts[number + 1])
            computed = forward(pixels).float().cpu().numpy()
            if not np.isfinite(computed).all():
                raise InputError('descriptors are not finite: the weights are damaged')
            rows = np.arange(start, start + len(computed)) if packed else parts[number]
            out[rows] = computed
            start += len(computed)


def feature_map(path: Path, count: int, dim: int) -> np.memmap[Any, np.dtype[np.float16]]:
    """Return a new (count, dim) float16 memory map: half the disk, and no copy in memory.

    :raises InputError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(path, 'w+', np.float16, (count, dim))
    except OSError as error:
        raise InputError(f'cannot write {str(path)!r}: {error}') from error
