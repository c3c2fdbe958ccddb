# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The authors' MATLAB files (Relja/netvlad), as hloc distributes them: VGG16, v1, whitened.

Convolutions are H x W x in x out. The layer ``vlad:core`` holds D x K assignment weights and
D x K negated centres, with a (K,) bias between them in v2. Descriptors are ``d * K + k``, so the
columns of the whitening are permuted to our ``k * D + d``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from netvlad_ros.descriptor.backbones import load_torchvision_state, make_backbone
from netvlad_ros.descriptor.bundle import BundleInfo
from netvlad_ros.descriptor.importers.parts import (
    HEIGHT,
    WIDTH,
    Imported,
    netvlad_layer,
    whitening_layer,
)
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.whitening import Whitening
from netvlad_ros.errors import ModelError

# Positions of VGG16's convolutions in torchvision; the files agree, though ReLU and pooling
# are swapped in them.
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# Where hloc's files have the NetVLAD layer and the whitening.
_CORE, _WPCA = 30, 33
# hloc shrinks larger images to this.
_MAX_SIDE = 1024


def read(source: Path) -> Imported:
    """Return the network of a .mat file.

    :raises ModelError: it is damaged or holds another network.
    """
    layers, mean = _load(source)
    state: dict[str, Tensor] = {}
    for index in _CONVOLUTIONS:
        weights = _weights(layers, index)
        if len(weights) != 2 or weights[0].ndim != 4:
            raise ModelError(f'{str(source)!r}: {_describe(layers)} is not VGG16 to conv5_3')
        state[f'features.{index}.weight'] = _tensor(weights[0].transpose(3, 2, 0, 1))
        state[f'features.{index}.bias'] = _tensor(weights[1].reshape(-1))
    backbone = make_backbone('vgg16')
    load_torchvision_state(backbone, state)
    core = _weights(layers, _index_of(layers, 'vlad:core', _CORE))
    if len(core) not in (2, 3) or core[0].ndim != 2:
        raise ModelError(
            f'{str(source)!r}: no NetVLAD layer of 2 or 3 weights in {_describe(layers)}'
        )
    bias = _tensor(core[1].reshape(-1)) if len(core) == 3 else None
    pooling = netvlad_layer(_tensor(core[0].T), _tensor(-core[-1].T), bias, backbone.channels)
    whitening = _whitening(layers, pooling.clusters, backbone.channels)
    policy = InputPolicy(
        mean=(mean[0], mean[1], mean[2]),
        std=(1.0, 1.0, 1.0),
        value_range=255.0,
        resize='max_side',
        height=HEIGHT,
        width=WIDTH,
        max_side=_MAX_SIDE,
    )
    info = BundleInfo('', licence='MIT code, weights unstated', source='Relja/netvlad .mat')
    return Imported(DescriptorNetwork(policy, backbone, pooling, whitening), info)


def _load(source: Path) -> tuple[list[Any], list[float]]:
    from scipy.io import loadmat

    try:
        content = loadmat(source, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # damaged files raise many kinds
        raise ModelError(f'cannot read MATLAB file {str(source)!r}: {error}') from error
    found = ', '.join(key for key in content if not key.startswith('__'))
    try:
        net = content['net']
        average = np.asarray(net.meta.normalization.averageImage, dtype=np.float64)
        layers = list(np.atleast_1d(net.layers))
    except (KeyError, AttributeError) as error:
        raise ModelError(
            f'{str(source)!r} holds {found or "nothing"}, expected net.layers and '
            f'net.meta.normalization.averageImage: {error}'
        ) from error
    mean = average[0, 0] if average.ndim == 3 else average.reshape(-1)
    if mean.shape != (3,):
        raise ModelError(f'{str(source)!r}: averageImage is {average.shape}, expected three means')
    return layers, [float(value) for value in mean]


def _whitening(layers: list[Any], clusters: int, channels: int) -> Optional[Whitening]:
    weights = _weights(layers, _index_of(layers, 'WPCA', _WPCA))
    if not weights:
        return None
    matrix = weights[0]  # (D*K, P) after squeezing 1 x 1 x D*K x P
    if len(weights) != 2 or matrix.ndim != 2 or matrix.shape[0] != clusters * channels:
        raise ModelError(f'WPCA is {matrix.shape}, expected {clusters * channels} rows')
    ours = matrix.reshape(channels, clusters, -1).transpose(2, 1, 0).reshape(matrix.shape[1], -1)
    layer: Optional[Whitening] = whitening_layer(
        _tensor(ours), _tensor(weights[1].reshape(-1)), clusters * channels
    )
    return layer


def _weights(layers: list[Any], index: int) -> list[npt.NDArray[np.float32]]:
    if index >= len(layers):
        return []
    weights = getattr(layers[index], 'weights', ())
    return [np.asarray(w, dtype=np.float32) for w in weights]


def _index_of(layers: list[Any], name: str, usual: int) -> int:
    """Return where a layer is by its name, or where it usually is if the file has no names."""
    names = [_name(layer) for layer in layers]
    return names.index(name) if name in names else usual


def _name(layer: Any) -> str:
    name = getattr(layer, 'name', '')
    return name if isinstance(name, str) else ''  # SciPy makes an array of an empty name


def _describe(layers: list[Any]) -> str:
    names = [_name(layer) for layer in layers]
    return f'{len(names)} layers ({", ".join(names[:4])}, ... {", ".join(names[-3:])})'


def _tensor(array: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
