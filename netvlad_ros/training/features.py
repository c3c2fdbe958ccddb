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
from netvlad_ros.training.array_file import let_go, new_array_file
from netvlad_ros.training.frozen import Forward, device_of, fast_forward, is_convolutional
from netvlad_ros.training.images import ImageSource, Progress, by_size, no_progress
from netvlad_ros.training.places import IntArray
from netvlad_ros.types import Float32Array

BATCH = 16

# After so many batches the pages of a memory map are given back.
_BATCHES_HELD = 64

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

    While one batch is computed the next one is decoded. Images of one size are computed together.

    :param packed: write to the first rows of ``out`` instead, in the order of ``indices``.
    :param forward: of ``forward_for``, where several calls share it.
    :raises InputError: a descriptor is not finite or has another length than the rows.
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
            batch = waiting.result()
            if number + 1 < len(parts):
                waiting = ahead.submit(images.batch, parts[number + 1])
            rows = np.arange(start, start + len(batch)) if packed else parts[number]
            for places, pixels in by_size(batch):
                computed = forward(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
                if not np.isfinite(computed).all():
                    raise InputError('descriptors are not finite: the weights are damaged')
                if computed.shape[1] != out.shape[1]:
                    raise InputError(
                        f'images of shape {pixels.shape[1:]} give {computed.shape[1]} values, '
                        f'expected {out.shape[1]}: this model needs its own input size'
                    )
                out[rows[places]] = computed
            start += len(batch)
            if number % _BATCHES_HELD == 0:
                let_go(out)


def feature_map(path: Path, count: int, dim: int) -> np.memmap[Any, np.dtype[np.float16]]:
    """Return a new (count, dim) float16 memory map: half the disk, and no copy in memory.

    :raises InputError: the disk is full or the folder cannot be written.
    """
    return new_array_file(path, np.float16, (count, dim))
