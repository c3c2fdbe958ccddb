# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Classical VLAD (Jegou et al., CVPR 2010): hard assignment to a k-means codebook.

Normalised as in Arandjelovic and Zisserman, CVPR 2013 ("All about VLAD"): signed square root,
each cluster's residual to unit length, then the whole vector.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.unit_length import unit


class VLAD(nn.Module):
    """Hard-assigned residuals of local features to K centres.

    :param clusters: K, number of centres.
    :param channels: D, size of a local feature.
    """

    kind = 'vlad'
    settings: ClassVar[dict[str, object]] = {'kind': kind}

    def __init__(self, clusters: int, channels: int) -> None:
        super().__init__()
        self.register_buffer('centres', torch.zeros(clusters, channels))
        self.centres: Tensor

    @property
    def clusters(self) -> int:
        """Return K."""
        return int(self.centres.shape[0])

    def init_from_clusters(self, centres: Tensor, samples: Tensor) -> float:
        """Set the codebook to (K, D) k-means centres; the samples play no part."""
        self.centres.copy_(centres)
        return float('inf')

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return self.clusters * channels

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, K*D) unit rows for (N, D, H, W) features; a map without any gives zeros."""
        x = unit(features.flatten(2).to(self.centres.dtype), dim=1)  # (N, D, L)
        # |x - c|^2 without |x|^2, which is the same for every centre.
        scores = 2.0 * self.centres @ x - self.centres.square().sum(dim=1)[:, None]
        assigned = nn.functional.one_hot(scores.argmax(dim=1), self.clusters).to(x.dtype)
        sums = (x @ assigned).transpose(1, 2)  # (N, K, D)
        residuals = sums - assigned.sum(dim=1)[:, :, None] * self.centres
        rooted = residuals.sign() * residuals.abs().sqrt()
        return unit(unit(rooted, dim=2).flatten(1), dim=1)
