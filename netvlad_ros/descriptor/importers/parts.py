# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the importers share: a recognised network and the parts that it is put together from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from netvlad_ros.descriptor.backbones import Backbone, load_torchvision_state, make_backbone
from netvlad_ros.descriptor.bundle import BundleInfo
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.whitening import Whitening, whitening_from
from netvlad_ros.errors import ModelError

State = Mapping[str, Tensor]

# The trained size of every family here.
HEIGHT, WIDTH = 480, 640

# torchvision's ResNet as the plain list of its children, which is how trainers cut it.
_RESNET_CHILDREN = {
    '0': 'conv1', '1': 'bn1', '4': 'layer1', '5': 'layer2', '6': 'layer3', '7': 'layer4',
}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """A converted network; the caller names it."""

    network: DescriptorNetwork
    info: BundleInfo


def under(state: State, prefix: str) -> dict[str, Tensor]:
    """Return the tensors under ``prefix.``, without it."""
    start = f'{prefix}.'
    return {key[len(start) :]: value for key, value in state.items() if key.startswith(start)}


def sequential_backbone(tensors: State) -> Backbone:
    """Return the backbone whose children are numbered in a plain list.

    :raises ModelError: it is none of ours; the message says what was found.
    """
    if not tensors:
        raise ModelError('the file holds a pooling but no backbone')
    is_resnet = any('.conv1.weight' in key for key in tensors)
    names = {key: _torchvision_key(key, is_resnet) for key in tensors}
    renamed = {names[key]: value for key, value in tensors.items()}
    for name in _candidates(renamed, is_resnet):
        backbone = make_backbone(name, on_meta=True)
        wanted = {
            key: value.shape
            for key, value in backbone.state_dict().items()
            if not key.endswith('num_batches_tracked')
        }
        found = {k: v.shape for k, v in renamed.items() if not k.endswith('num_batches_tracked')}
        if wanted == found:
            backbone = make_backbone(name)
            load_torchvision_state(backbone, renamed)
            return backbone
    shown = ', '.join(f'{key} {tuple(value.shape)}' for key, value in list(tensors.items())[:3])
    raise ModelError(
        f'the backbone has {len(tensors)} tensors ({shown}, ...): none of VGG16, AlexNet, '
        'ResNet18 and ResNet50 cut at their last convolution, layer3 or layer4'
    )


def _torchvision_key(key: str, is_resnet: bool) -> str:
    if not is_resnet:
        return f'features.{key}'
    child, _, rest = key.partition('.')
    return f'{_RESNET_CHILDREN.get(child, child)}.{rest}'


def _candidates(renamed: State, is_resnet: bool) -> tuple[str, ...]:
    if not is_resnet:
        return 'vgg16', 'alexnet'
    layer = 'layer4' if any(key.startswith('layer4') for key in renamed) else 'layer3'
    return f'resnet18_{layer}', f'resnet50_{layer}'


def netvlad_layer(
    assignment: Tensor, centres: Tensor, bias: Optional[Tensor], channels: int
) -> NetVLAD:
    """Return the layer with the given (K, D, 1, 1) or (K, D) tensors; a bias makes it v2.

    :raises ModelError: the shapes do not belong together.
    """
    weight = assignment.flatten(1)
    fits = weight.shape == centres.shape and centres.shape[1] == channels
    if centres.ndim != 2 or not fits or (bias is not None and bias.shape != centres.shape[:1]):
        raise ModelError(
            f'assignment {tuple(assignment.shape)} and centres {tuple(centres.shape)} do not fit '
            f'a backbone of {channels} channels'
        )
    layer = NetVLAD(centres.shape[0], channels, 'v1' if bias is None else 'v2')
    with torch.no_grad():
        layer.assignment.copy_(weight)
        layer.centres.copy_(centres)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def whitening_layer(weight: Optional[Tensor], bias: Optional[Tensor], inputs: int) -> Any:
    """Return the whitening of a (P, inputs[, 1, 1]) weight, or None without one.

    :raises ModelError: the shapes do not belong together.
    """
    if weight is None and bias is None:
        return None
    if weight is None or bias is None:
        raise ModelError('the whitening has only one of weight and bias')
    weight = weight.flatten(1)
    if weight.shape != (bias.shape[0], inputs):
        raise ModelError(
            f'whitening weight {tuple(weight.shape)} and bias {tuple(bias.shape)} do not fit a '
            f'pooling of {inputs} values'
        )
    layer: Whitening = whitening_from(weight, bias)
    return layer
