# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The other poolings of the paper, and GeM: (N, D, H, W) features to (N, P) unit rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Union

import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.descriptor.vlad import VLAD
from netvlad_ros.errors import ModelError


class MaxPooling(nn.Module):
    """Largest value of each channel, in each cell of a grid over the map (1 x 1: ``f_max``).

    :param grid_hw: rows and columns of the output grid.
    """

    kind = 'max'

    def __init__(self, grid_hw: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.grid_hw = (int(grid_hw[0]), int(grid_hw[1]))

    @property
    def settings(self) -> dict[str, object]:
        """Return what a bundle needs beside the tensors to rebuild the layer."""
        return {'kind': self.kind, 'grid_hw': list(self.grid_hw)}

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return channels * self.grid_hw[0] * self.grid_hw[1]

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, D * rows * columns) unit rows."""
        if self.grid_hw == (1, 1):
            return unit(features.flatten(2).amax(dim=2), dim=1)
        pooled = nn.functional.adaptive_max_pool2d(features, self.grid_hw)
        return unit(pooled.flatten(1), dim=1)


class AveragePooling(nn.Module):
    """Mean of each channel."""

    kind = 'average'
    settings: ClassVar[dict[str, object]] = {'kind': kind}

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return channels

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, D) unit rows."""
        return unit(features.flatten(2).mean(dim=2), dim=1)


class NoPooling(nn.Module):
    """The whole feature map as one vector; its length depends on the image size."""

    kind = 'none'
    settings: ClassVar[dict[str, object]] = {'kind': kind}

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return channels * height * width

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, D*H*W) unit rows."""
        return unit(features.flatten(1), dim=1)


class GeM(nn.Module):
    """Generalised mean with a learnt exponent (Radenovic et al., TPAMI 2018)."""

    kind = 'gem'
    settings: ClassVar[dict[str, object]] = {'kind': kind}
    _floor = 1e-6

    def __init__(self, exponent: float = 3.0) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor([exponent]))

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return channels

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, D) unit rows. Powers overflow in half precision, hence float32."""
        x = features.flatten(2).to(self.exponent.dtype).clamp(min=self._floor)
        # Relative to the largest value, so that no power overflows; unit() cancels the scale.
        scale = x.amax(dim=(1, 2), keepdim=True)
        mean = (x / scale).pow(self.exponent).mean(dim=2)
        return unit(mean.clamp(min=1e-30).pow(1.0 / self.exponent), dim=1)


Pooling = Union[NetVLAD, VLAD, MaxPooling, AveragePooling, NoPooling, GeM]
KINDS = ('netvlad', 'vlad', 'max', 'average', 'none', 'gem')


def make_pooling(settings: Mapping[str, Any], clusters: int, channels: int) -> Pooling:
    """Return the layer that ``settings`` of a bundle describe.

    :param settings: ``kind`` and that kind's own settings, as a layer's ``settings`` gives them.
    :param clusters: K, used by netvlad and vlad.
    :param channels: D, size of a local feature.
    :raises ModelError: the kind is unknown.
    """
    kind = settings.get('kind')
    if kind == 'netvlad':
        return NetVLAD(clusters, channels, str(settings.get('version', 'v1')))
    if kind == 'vlad':
        return VLAD(clusters, channels)
    if kind == 'max':
        rows, columns = settings.get('grid_hw', (1, 1))
        return MaxPooling((rows, columns))
    if kind == 'average':
        return AveragePooling()
    if kind == 'none':
        return NoPooling()
    if kind == 'gem':
        return GeM()
    raise ModelError(f'pooling is {kind!r}, allowed: {", ".join(KINDS)}')
