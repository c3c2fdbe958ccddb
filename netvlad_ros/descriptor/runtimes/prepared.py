# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The network in the form that runs: eval mode, batch norms folded, backbone in its precision."""

from __future__ import annotations

import copy
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.types import UInt8Array

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}

# Nothing averages out the 8 bits of bfloat16 in depthwise and narrow layers: of a MobileNetV2 in
# whole, real pictures keep a cosine of 0.986; with only its wide layers rounded, 0.9997.
MIN_ROUNDED_WEIGHTS = 50_000


def for_inference(network: DescriptorNetwork, precision: str = 'fp32') -> DescriptorNetwork:
    """Return a copy with batch norms folded; only the backbone takes a half precision.

    The whitening, half a gigabyte in the published networks, shares its memory.
    """
    shared: dict[int, Any] = {}
    if network.whitening is not None:
        for parameter in network.whitening.parameters():
            shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    twin = copy.deepcopy(network, shared).eval().requires_grad_(False)
    if isinstance(twin.backbone, nn.Sequential):
        _fold_batch_norms(twin.backbone)
        convolutions = [m for m in twin.backbone.modules() if isinstance(m, nn.Conv2d)]
        if precision == 'bf16' and any(conv.groups > 1 for conv in convolutions):
            _round_wide_layers(twin.backbone)
        else:
            twin.backbone.to(DTYPES[precision])
    return twin


class _Rounded(nn.Module):
    """A convolution in bfloat16 between layers in float32."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._convolution = convolution.to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C', H', W') float32 of (N, C, H, W) float32."""
        out: torch.Tensor = self._convolution(x.to(torch.bfloat16))
        return out.float()


def _round_wide_layers(module: Any) -> None:
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.Conv2d):
            _round_wide_layers(child)
        elif child.groups == 1 and child.weight.numel() >= MIN_ROUNDED_WEIGHTS:
            setattr(module, name, _Rounded(child))


def _fold_batch_norms(module: Any) -> None:
    """Fold in the order of torchvision's children: a batch norm follows its convolution."""
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            conv = previous[1]
            assert isinstance(conv, nn.Conv2d)
            setattr(module, previous[0], nn.utils.fuse_conv_bn_eval(conv, child))
            setattr(module, name, nn.Identity())
        _fold_batch_norms(child)
        previous = (name, child)


def random_images(count: int, height: int, width: int, seed: int = 0) -> UInt8Array:
    """Return (N, H, W, 3) uint8 pictures with structure at every scale, for checks and timings."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, height, width, 3), dtype=np.float32)
    for picture in pictures:
        for cells in (4, 16, 64):
            noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * pictures, 0, 255).astype(np.uint8)
