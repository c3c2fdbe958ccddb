# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The convolutional networks that give local features, from torchvision, cut before pooling.

========================  =========  ======  =====================================================
name                      channels   stride  layers that train by default
========================  =========  ======  =====================================================
vgg16                     512        16      conv5_1 to conv5_3 (as the paper's demo)
alexnet                   256        16      conv5
resnet18_layer3           256        16      layer3
resnet18_layer4           512        32      layer4
resnet50_layer3           1024       16      layer3
resnet50_layer4           2048       32      layer4
mobilenet_v2_s16          96         16      the last four inverted residuals (features 10 to 13)
mobilenet_v3_large_s16    112        16      the last two inverted residuals (features 11, 12)
mobilenet_v3_small_s16    48         16      the last two inverted residuals (features 7, 8)
========================  =========  ======  =====================================================

VGG16 and AlexNet end at their last convolution, before its ReLU, as the paper has it.
Parameters are named as in torchvision, so that its checkpoints load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netvlad_ros.errors import ConfigError, ModelError


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone and what of it is fine-tuned.

    :param torchvision_name: the model it is cut from.
    :param cut: picks the named parts that stay.
    :param channels: D of the local features.
    :param stride: image pixels per step of the feature map.
    :param trained: prefixes of the parameters that train by default.
    """

    torchvision_name: str
    cut: Callable[[Any], OrderedDict[str, nn.Module]]
    channels: int
    stride: int
    trained: tuple[str, ...]


def _features(end: int) -> Callable[[Any], OrderedDict[str, nn.Module]]:
    return lambda model: OrderedDict(features=model.features[:end])


def _residual(last: int) -> Callable[[Any], OrderedDict[str, nn.Module]]:
    names = ['conv1', 'bn1', 'relu', 'maxpool', *(f'layer{n}' for n in range(1, last + 1))]
    return lambda model: OrderedDict((name, getattr(model, name)) for name in names)


BACKBONES: Mapping[str, BackboneSpec] = {
    'vgg16': BackboneSpec(
        'vgg16', _features(29), 512, 16, ('features.24', 'features.26', 'features.28')
    ),
    'alexnet': BackboneSpec('alexnet', _features(11), 256, 16, ('features.10',)),
    'resnet18_layer3': BackboneSpec('resnet18', _residual(3), 256, 16, ('layer3',)),
    'resnet18_layer4': BackboneSpec('resnet18', _residual(4), 512, 32, ('layer4',)),
    'resnet50_layer3': BackboneSpec('resnet50', _residual(3), 1024, 16, ('layer3',)),
    'resnet50_layer4': BackboneSpec('resnet50', _residual(4), 2048, 32, ('layer4',)),
    'mobilenet_v2_s16': BackboneSpec(
        'mobilenet_v2', _features(14), 96, 16, tuple(f'features.{n}' for n in range(10, 14))
    ),
    'mobilenet_v3_large_s16': BackboneSpec(
        'mobilenet_v3_large', _features(13), 112, 16, ('features.11', 'features.12')
    ),
    'mobilenet_v3_small_s16': BackboneSpec(
        'mobilenet_v3_small', _features(9), 48, 16, ('features.7', 'features.8')
    ),
}


class Backbone(nn.Sequential):
    """A cut network: (N, 3, H, W) normalised images to (N, channels, h, w) local features."""

    def __init__(self, name: str, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__(parts)
        self.name = name
        self.spec = BACKBONES[name]

    @property
    def channels(self) -> int:
        """Return D of the local features."""
        return self.spec.channels

    def feature_size_hw(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the feature map of an image without computing it."""
        with torch.device('meta'):
            twin: nn.Module = _build(self.name)
            shape = twin(torch.empty(1, 3, height, width)).shape
        return int(shape[2]), int(shape[3])

    def train_only(self, prefixes: tuple[str, ...] | None = None) -> None:
        """Let only parameters under the prefixes train; by default those of the table.

        :raises ConfigError: there is no parameter under one of them.
        """
        chosen = self.spec.trained if prefixes is None else prefixes
        names = [name for name, _ in self.named_parameters()]
        for prefix in chosen:
            if not any(f'{name}.'.startswith(f'{prefix}.') for name in names):
                # One level for ResNet (layer3), two for what lies in `features` (features.10).
                depth = 2 if len(self) == 1 else 1
                known = dict.fromkeys('.'.join(name.split('.')[:depth]) for name in names)
                raise ConfigError(
                    f'{self.name} has no parameter under {prefix!r}, allowed are: '
                    f'{", ".join(known)}, and what is below them'
                )
        for name, parameter in self.named_parameters():
            parameter.requires_grad = any(f'{name}.'.startswith(f'{p}.') for p in chosen)


def make_backbone(name: str, *, on_meta: bool = False) -> Backbone:
    """Return a backbone in eval mode with random weights.

    :param on_meta: leave the parameters without memory, for weights that are assigned next.
    :raises ModelError: the name is unknown.
    """
    if name not in BACKBONES:
        raise ModelError(f'backbone is {name!r}, allowed: {", ".join(BACKBONES)}')
    with torch.device('meta'):
        backbone = _build(name)
    if not on_meta:
        backbone.to_empty(device='cpu')
        for module in backbone.modules():
            reset = getattr(module, 'reset_parameters', None)
            if callable(reset):
                reset()
    return backbone.eval()


def _build(name: str) -> Backbone:
    import torchvision.models as zoo

    spec = BACKBONES[name]
    return Backbone(name, spec.cut(zoo.get_model(spec.torchvision_name, weights=None)))


def load_torchvision_state(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Load the backbone's part of a torchvision checkpoint; the rest of it is ignored.

    :raises ModelError: a tensor is missing or has another shape.
    """
    wanted = backbone.state_dict()
    counters = {key for key in wanted if key.endswith('num_batches_tracked')}
    missing = sorted(set(wanted) - set(state) - counters)
    if missing:
        raise ModelError(
            f'checkpoint lacks {missing[0]!r} and {len(missing) - 1} more of {backbone.name}'
        )
    try:
        backbone.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)
    except RuntimeError as error:
        raise ModelError(f'checkpoint does not fit {backbone.name}: {error}') from error
