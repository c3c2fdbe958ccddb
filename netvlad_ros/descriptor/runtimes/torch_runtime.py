# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inference with torch on a CPU or an NVIDIA GPU."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.types import Float32Array, UInt8Array

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class TorchRuntime:
    """Runs the network itself. Half precisions apply to the backbone only.

    :param network: left unchanged; its batch norms are folded into a copy.
    :param device: 'cpu', 'cuda' or 'cuda:N'.
    :param precision: 'fp32', 'bf16' or 'fp16'.
    :param channels_last: memory layout of the convolutions.
    """

    def __init__(
        self, network: DescriptorNetwork, device: str, precision: str, channels_last: bool
    ) -> None:
        self.name = 'torch channels-last' if channels_last else 'torch'
        self.device = device
        self.precision = precision
        self._device = torch.device(device)
        self._dtype = DTYPES[precision]
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = for_inference(network).to(self._device)
        self.network.backbone.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._staging = torch.empty(0, dtype=torch.uint8)

    @torch.inference_mode()
    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images."""
        features = self.backbone(self.normalise(self.upload(images)))
        descriptors: Float32Array = self.network.pool(features).float().cpu().numpy()
        return descriptors

    def upload(self, images: UInt8Array) -> Tensor:
        """Return the images on the device, through page-locked memory where it has its own."""
        host = torch.from_numpy(images)
        if self._device.type != 'cuda':
            return host
        if self._staging.shape != host.shape:
            self._staging = torch.empty(host.shape, dtype=torch.uint8, pin_memory=True)
        # The call ends with a copy back to the host, so the last upload is done by now.
        self._staging.copy_(host)
        return self._staging.to(self._device, non_blocking=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Return the network's input in the layout of the convolutions."""
        x: Tensor = self.network.normalise(images)
        return x.contiguous(memory_format=self._layout) if x.dim() == 4 else x

    def backbone(self, x: Tensor) -> Tensor:
        """Return the local features in the chosen precision."""
        if self._dtype is torch.float32:
            features: Tensor = self.network.backbone(x)
            return features
        with torch.autocast(self._device.type, dtype=self._dtype):
            return self.network.backbone(x)  # type: ignore[no-any-return]


def for_inference(network: DescriptorNetwork) -> DescriptorNetwork:
    """Return a copy in eval mode with batch norms folded into the convolutions."""
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(twin.backbone, nn.Sequential):
        _fold_batch_norms(twin.backbone)
    return twin


def _fold_batch_norms(module: Any) -> None:
    """Fold in torchvision's order of children, where each batch norm follows its convolution."""
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            conv = previous[1]
            assert isinstance(conv, nn.Conv2d)
            assert conv.out_channels == child.num_features
            setattr(module, previous[0], nn.utils.fuse_conv_bn_eval(conv, child))
            setattr(module, name, nn.Identity())
        _fold_batch_norms(child)
        previous = (name, child)


def random_images(count: int, height: int, width: int, seed: int = 0) -> UInt8Array:
    """Return (N, H, W, 3) uint8 pictures with structure at every scale, for checks and timings."""
    import cv2

    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, height, width, 3), dtype=np.float32)
    for picture in pictures:
        for cells in (4, 16, 64):
            noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * pictures, 0, 255).astype(np.uint8)
