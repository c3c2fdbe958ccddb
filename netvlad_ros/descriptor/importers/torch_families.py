# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The families of torch checkpoints: how each names its tensors and prepares its images.

All flatten as ``k * D + d`` like us, and all compute v1 unless the assignment has a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from netvlad_ros.descriptor.bundle import BundleInfo
from netvlad_ros.descriptor.importers.parts import (
    HEIGHT,
    WIDTH,
    Imported,
    State,
    netvlad_layer,
    sequential_backbone,
    under,
    whitening_layer,
)
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy

_AS_IT_IS = InputPolicy(resize='none', height=HEIGHT, width=WIDTH)
# Patch-NetVLAD resizes with PIL's antialiased filter and the benchmark resizes the normalised
# tensor, both bilinear; ours is the area average.
_FIXED = InputPolicy(resize='fixed', height=HEIGHT, width=WIDTH)
# The Caffe mean on the scale of 1; the deviation brings the values back to 0-255.
_CAFFE = InputPolicy(
    mean=(0.48501960784313836, 0.4579568627450961, 0.4076039215686255),
    std=(1 / 255, 1 / 255, 1 / 255),
    resize='fixed',
    height=HEIGHT,
    width=WIDTH,
)


@dataclass(frozen=True)
class Family:
    """One trainer's checkpoints.

    :param encoder: prefix of the backbone, a plain list of torchvision's children.
    :param pooling: prefix of ``centroids`` and ``conv.weight``.
    :param whitening: prefix of ``weight`` and ``bias``, '' where the trainer has none.
    :param whitened: whether a file without whitening is of another family.
    """

    title: str
    encoder: str
    pooling: str
    whitening: str
    whitened: bool
    policy: InputPolicy
    licence: str

    def convert(self, state: State) -> Optional[Imported]:
        """Return the network of a checkpoint, or None if it is of another family.

        :raises ModelError: it is of this family but does not fit together.
        """
        vlad, encoder = under(state, self.pooling), under(state, self.encoder)
        whitening = under(state, self.whitening) if self.whitening else {}
        if not {'centroids', 'conv.weight'} <= set(vlad) or not encoder:
            return None
        if self.whitened and not whitening:
            return None
        backbone = sequential_backbone(encoder)
        layer = netvlad_layer(
            vlad['conv.weight'], vlad['centroids'], vlad.get('conv.bias'), backbone.channels
        )
        whiten = whitening_layer(
            whitening.get('weight'), whitening.get('bias'), layer.clusters * backbone.channels
        )
        info = BundleInfo('', licence=self.licence, source=f'{self.title} checkpoint')
        return Imported(DescriptorNetwork(self.policy, backbone, layer, whiten), info)


# Patch-NetVLAD's names contain all of Nanne's, so it is asked first.
TORCH_FAMILIES = (
    Family(
        'Patch-NetVLAD', 'encoder', 'pool', 'WPCA.0', True, _FIXED, 'MIT, CC BY-NC-SA badge'
    ),
    Family('Nanne/pytorch-NetVlad', 'encoder', 'pool', '', False, _AS_IT_IS, 'none stated'),
    Family('OpenIBL', 'base_model.base', 'net_vlad', 'pca_layer', False, _CAFFE, 'MIT'),
    Family(
        'deep-visual-geo-localization benchmark', 'backbone', 'aggregation', '', False, _FIXED,
        'MIT',
    ),
)  # fmt: skip
