# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images to unit vectors: what the node, the evaluation and the training use."""

from __future__ import annotations

from collections.abc import Sequence
import threading
from typing import Any, Optional, Union

import numpy as np

from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor.bundle import ModelBundle, load_bundle
from netvlad_ros.descriptor.locate import find_model
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.runtimes.selection import Runtime, make_runtime
from netvlad_ros.errors import InputError
from netvlad_ros.types import Float32Array, UInt8Array

# Images in one call of the engine; bounds the memory of a long list.
_BATCH = 16


class Descriptor:
    """A model that is ready to run.

    :param bundle: weights with their preprocessing.
    :param config: device, runtime, precision and threads.
    """

    def __init__(self, bundle: ModelBundle, config: Optional[DescriptorConfig] = None) -> None:
        self._bundle = bundle
        self._dim = bundle.dim
        # Local features differ in number from image to image and do not stack.
        self._batch = 1 if bundle.network.backbone.name == RootSift.name else _BATCH
        # Engines keep buffers of their own; a service may ask while the worker computes.
        self._lock = threading.Lock()
        self._runtime: Runtime = make_runtime(bundle, config or DescriptorConfig())

    @property
    def model_id(self) -> str:
        """Return the name and hash that tie a map to this model."""
        return self._bundle.model_id

    @property
    def dim(self) -> int:
        """Return the length of a descriptor."""
        return self._dim

    @property
    def recommended_min_similarity(self) -> Optional[float]:
        """Return the threshold that the bundle recommends, if it does."""
        return self._bundle.info.recommended_min_similarity

    def compute(self, images_rgb: Union[Sequence[UInt8Array], UInt8Array]) -> Float32Array:
        """Return the descriptors of images, which may differ in size.

        :param images_rgb: (H, W, 3) uint8 RGB images, or one (N, H, W, 3) array of them.
        :returns: (N, dim) float32 unit rows.
        :raises InputError: an image has another shape or type, or no pixels.
        """
        inputs = [self._bundle.policy.resize_image(image) for image in images_rgb]
        descriptors = np.empty((len(inputs), self._dim), dtype=np.float32)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(inputs):
            by_size.setdefault(image.shape, []).append(index)
        for indices in by_size.values():
            for start in range(0, len(indices), self._batch):
                chosen = indices[start : start + self._batch]
                batch = (
                    inputs[chosen[0]][None]
                    if len(chosen) == 1
                    else np.stack([inputs[index] for index in chosen])
                )
                with self._lock:
                    rows = self._runtime(batch)
                if rows.shape[1] != self._dim:
                    raise InputError(
                        f'images of {batch.shape[2]}x{batch.shape[1]} give {rows.shape[1]} '
                        f'values, expected {self._dim}: this model needs its own input size'
                    )
                descriptors[chosen] = rows
        return descriptors

    def describe(self) -> dict[str, Any]:
        """Return what runs, and where: for diagnostics and reports."""
        network, policy = self._bundle.network, self._bundle.policy
        return {
            'model_id': self.model_id,
            'backbone': network.backbone.name,
            'pooling': network.pooling.kind,
            'dim': self._dim,
            'device': self._runtime.device,
            'runtime': self._runtime.name,
            'precision': self._runtime.precision,
            'input_size': f'{policy.width}x{policy.height}',
            'resize': policy.resize,
        }


def load_descriptor(config: Optional[DescriptorConfig] = None) -> Descriptor:
    """Return the descriptor that a config names.

    :raises ModelError: the model is unknown, missing or damaged.
    :raises ConfigError: device, runtime and precision do not go together on this machine.
    """
    config = config or DescriptorConfig()
    return Descriptor(load_bundle(find_model(config.model)), config)
