# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The NetVLAD layer (Arandjelovic et al., CVPR 2016), both published parametrisations.

v1 is ``vlad_preL2_intra`` of the authors' code and the form of every published weight: no bias,
assignment along normalised centres. v2 is the paper's equation with a bias for each cluster.
Descriptors are flattened as ``k * D + d`` (cluster major); the authors' files use ``d * K + k``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.unit_length import EPS, unit
from netvlad_ros.errors import ConfigError, InputError

VERSIONS = ('v1', 'v2')

# Appendix A of the paper: alpha makes the largest assignment on average 100 times the second.
TOP2_RATIO = 100.0

# Descriptors whose distances to all centres are held at once while initialising.
_BLOCK = 65536


class NetVLAD(nn.Module):
    """Soft-assigned residuals of local features to K centres, normalised twice.

    :param clusters: K, number of centres.
    :param channels: D, size of a local feature.
    :param version: 'v1' or 'v2'.
    """

    kind = 'netvlad'

    def __init__(self, clusters: int, channels: int, version: str = 'v1') -> None:
        super().__init__()
        if version not in VERSIONS:
            raise ConfigError(f'NetVLAD version is {version!r}, allowed: {", ".join(VERSIONS)}')
        self.version = version
        self.assignment = nn.Parameter(torch.randn(clusters, channels) / math.sqrt(channels))
        self.centres = nn.Parameter(torch.randn(clusters, channels) / math.sqrt(channels))
        if version == 'v2':
            self.bias = nn.Parameter(torch.zeros(clusters))
        else:
            self.register_parameter('bias', None)

    @property
    def settings(self) -> dict[str, object]:
        """Return what a bundle needs beside the tensors to rebuild the layer."""
        return {'kind': self.kind, 'version': self.version}

    @property
    def clusters(self) -> int:
        """Return K."""
        return int(self.centres.shape[0])

    def output_dim(self, channels: int, height: int, width: int) -> int:
        """Return the descriptor's length for a (D, H, W) feature map."""
        return self.clusters * channels

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, K*D) unit rows for (N, D, H, W) local features.

        Runs in float32 under any autocast, or in the parameters' float64.
        """
        device = features.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._aggregate(features)
        return self._aggregate(features)

    def _aggregate(self, features: Tensor) -> Tensor:
        x = features.flatten(2).to(self.centres.dtype)  # (N, D, L)
        # The local features' unit length is put on the (N, K, L) side of both products: a tenth
        # of the numbers, and no second copy of the features.
        scale = torch.rsqrt(x.square().sum(dim=1, keepdim=True) + EPS)
        logits = (self.assignment @ x) * scale  # (N, K, L)
        if self.bias is not None:
            logits = logits + self.bias[:, None]
        weights = logits.softmax(dim=1)
        # sum_l a_kl (x_l - c_k) as two products: the residuals are never stored.
        sums = (weights * scale) @ x.transpose(1, 2)  # (N, K, D)
        residuals = sums - weights.sum(dim=2, keepdim=True) * self.centres
        # Both normalisations in one pass: the lengths after the first follow from those before.
        squared = residuals.square().sum(dim=2, keepdim=True)
        intra = torch.rsqrt(squared + EPS)
        whole = torch.rsqrt((squared * intra.square()).sum(dim=1, keepdim=True) + EPS)
        return (residuals * (intra * whole)).flatten(1)

    @torch.no_grad()
    def init_from_clusters(self, centres: Tensor, samples: Tensor) -> float:
        """Set all parameters from k-means, as the paper's appendix A and the authors' code.

        :param centres: (K, D) k-means centres of L2-normalised local features.
        :param samples: (n, D) L2-normalised local features of the training images.
        :returns: alpha, the sharpness of the assignment.
        :raises InputError: a shape is wrong, values are not finite, or all centres coincide.
        """
        centres, samples = centres.double(), samples.double()
        if centres.shape != self.centres.shape or samples.shape[1:] != centres.shape[1:]:
            raise InputError(
                f'centres {tuple(centres.shape)} and samples {tuple(samples.shape)} do not fit '
                f'a layer of {tuple(self.centres.shape)} (clusters, channels)'
            )
        if centres.shape[0] < 2 or not (centres.isfinite().all() and samples.isfinite().all()):
            raise InputError('initialisation needs two or more clusters and finite values')
        directions = unit(centres, dim=1) if self.version == 'v1' else centres
        gap = torch.cat(
            [self._gaps(directions, part) for part in torch.split(samples, _BLOCK)]
        ).mean()
        if not gap > 0:
            raise InputError(f'mean gap between the two nearest centres is {gap.item()!r}')
        alpha = math.log(TOP2_RATIO) / gap.item()
        if self.version == 'v1':
            self.assignment.copy_(alpha * directions)
        else:
            self.assignment.copy_(2.0 * alpha * centres)
            assert self.bias is not None
            self.bias.copy_(-alpha * centres.square().sum(dim=1))
        self.centres.copy_(centres)
        return alpha

    def _gaps(self, directions: Tensor, samples: Tensor) -> Tensor:
        """Return (n,) how much better the best centre is than the second, per unit of alpha."""
        scores = samples @ directions.T
        if self.version == 'v2':
            # The samples' own squared length is the same for every centre and drops out.
            scores = 2.0 * scores - directions.square().sum(dim=1)
        best = scores.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]
