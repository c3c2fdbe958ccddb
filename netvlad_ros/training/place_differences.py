# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What changes in the descriptor of a place: between views of an image, and between its images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from netvlad_ros.training.augment import Augment, augmented
from netvlad_ros.training.images import ImageSource, Indices
from netvlad_ros.training.relations import PlaceSampler, Relations
from netvlad_ros.types import Float32Array, UInt8Array


class AugmentedImages:
    """One augmented view of every image, as an image source.

    :param images: all of one size.
    :param view: its number; another number is another view.
    """

    def __init__(self, images: ImageSource, augment: Augment, view: int, seed: int) -> None:
        self._images, self._augment, self._view, self._seed = images, augment, view, seed

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Indices) -> UInt8Array:
        """Return (n, H, W, 3) uint8 RGB."""
        numbers: Iterable[int] = [int(index) for index in indices]
        return augmented(
            self._images.batch(indices), numbers, self._augment, self._view, self._seed
        )


def place_differences(
    descriptors_vnd: Float32Array, relations: Relations, count: int, seed: int
) -> Float32Array:
    """Return (count, D) differences between two descriptors of one place.

    Half of them are between two views of one image, half between views of two images.

    :param descriptors_vnd: (V, N, D) unit descriptors of V views of N images.
    :raises InputError: no image has another one of its place.
    """
    views, images, _ = descriptors_vnd.shape
    rng = np.random.default_rng(seed)
    same = rng.integers(0, images, count - count // 2)
    pairs = PlaceSampler(relations, 1, 2).pairs(count // 2, rng)
    first = np.concatenate([same, pairs[:, 0]])
    second = np.concatenate([same, pairs[:, 1]])
    a, b = rng.integers(0, views, (2, count))
    return np.asarray(descriptors_vnd[a, first] - descriptors_vnd[b, second])
