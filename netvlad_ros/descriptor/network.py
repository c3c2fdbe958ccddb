# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The whole network: normalise, backbone, local projection, pooling, whitening."""

from __future__ import annotations

from typing import Optional, Union

import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.backbones import Backbone
from netvlad_ros.descriptor.local_projection import LocalProjection
from netvlad_ros.descriptor.poolings import NoPooling, Pooling
from netvlad_ros.descriptor.preprocess import InputPolicy, Normalise
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.whitening import Whitening

Encoder = Union[Backbone, RootSift]


class DescriptorNetwork(nn.Module):
    """(N, H, W, 3) uint8 RGB images to (N, dim) float32 unit rows."""

    def __init__(
        self,
        policy: InputPolicy,
        backbone: Encoder,
        pooling: Pooling,
        whitening: Optional[Whitening] = None,
        local_projection: Optional[LocalProjection] = None,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.normalise = nn.Identity() if isinstance(backbone, RootSift) else Normalise(policy)
        self.backbone = backbone
        self.local_projection = local_projection
        self.pooling = pooling
        self.whitening = whitening

    @property
    def dim(self) -> int:
        """Return the length of a descriptor (of the default input size, for pooling 'none')."""
        if self.whitening is not None:
            return self.whitening.dim
        height = width = 0
        if isinstance(self.pooling, NoPooling):
            size = self.policy.height, self.policy.width
            height, width = self.backbone.feature_size_hw(*size)
        return self.pooling.output_dim(self.local_channels, height, width)

    @property
    def local_channels(self) -> int:
        """Return the length of a local feature as it is pooled."""
        projection = self.local_projection
        return self.backbone.channels if projection is None else projection.channels

    def features(self, x: Tensor) -> Tensor:
        """Return (N, D, h, w) local features, in the precision that the backbone has."""
        parameter = next(self.backbone.parameters(), x)
        features: Tensor = self.backbone(x.to(parameter.dtype))
        return features

    def pool(self, features: Tensor) -> Tensor:
        """Return (N, dim) unit rows of (N, D, h, w) local features of the backbone."""
        wide = features if features.dtype == torch.float64 else features.float()
        if self.local_projection is not None:
            wide = self.local_projection(wide)
        pooled: Tensor = self.pooling(wide)
        if self.whitening is not None:
            pooled = self.whitening(pooled)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, dim) unit rows."""
        return self.pool(self.features(self.normalise(images)))
