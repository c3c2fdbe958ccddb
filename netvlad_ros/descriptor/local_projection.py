# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fewer dimensions for local features, before they are pooled.

Reduced by PCA, they cost an aggregated descriptor less than a reduction as strong after the
aggregation (Jegou et al., TPAMI 2012, for Fisher vectors and VLAD). The layer starts from that PCA
and trains with the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.errors import InputError


class LocalProjection(nn.Module):
    """``y = W x + b`` of each local feature at unit length: (N, D, H, W) to (N, P, H, W)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(outputs, channels))
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def channels(self) -> int:
        """Return P."""
        return int(self.weight.shape[0])

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected features, in float32 or the parameters' float64."""
        x = unit(features.to(self.weight.dtype), dim=1)
        return nn.functional.conv2d(x, self.weight[:, :, None, None], self.bias)

    @torch.no_grad()
    def init_from_samples(self, samples: Tensor) -> None:
        """Set all parameters from the principal axes of local features.

        :param samples: (n, D) L2-normalised local features of training images.
        :raises InputError: there are fewer samples or dimensions than outputs, or some are not
            finite.
        """
        outputs, channels = self.weight.shape
        if samples.shape[1:] != (channels,) or not outputs <= min(len(samples), channels):
            raise InputError(
                f'{len(samples)} local features of {samples.shape[-1]} values cannot be projected '
                f'from {channels} to {outputs} dimensions'
            )
        if not samples.isfinite().all():
            raise InputError('local features are not finite: the weights are damaged')
        x = samples.double()
        mean = x.mean(dim=0)
        x = x - mean
        _, vectors = torch.linalg.eigh(x.T @ x)
        axes = vectors.flip(1)[:, :outputs].T
        self.weight.copy_(axes)
        self.bias.copy_(-axes @ mean)


def local_projection_from(weight: Tensor, bias: Tensor) -> LocalProjection:
    """Return the layer with the given (P, D) weight and (P,) bias, without copying them."""
    layer = LocalProjection(0, 0)
    layer.weight = nn.Parameter(weight.detach())
    layer.bias = nn.Parameter(bias.detach())
    return layer
