# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inference with torch on a CPU or an NVIDIA GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.runtimes.prepared import for_inference
from netvlad_ros.types import Float32Array, UInt8Array


class TorchRuntime:
    """Runs the network itself.

    :param network: left unchanged; a copy is prepared and moved.
    :param device: 'cpu', 'cuda' or 'cuda:N'.
    :param precision: of the backbone: 'fp32', 'bf16' or 'fp16'.
    :param channels_last: memory layout of the convolutions.
    """

    def __init__(
        self, network: DescriptorNetwork, device: str, precision: str, channels_last: bool
    ) -> None:
        self.name = 'torch-channels-last' if channels_last else 'torch'
        self.device = device
        self.precision = precision
        self._device = torch.device(device)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = for_inference(network, precision).to(self._device)
        self.network.backbone.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._staging = torch.empty(0, dtype=torch.uint8)

    @torch.inference_mode()
    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images."""
        # cuDNN would round the inputs of fp32 convolutions to TF32, whose 10 bits of mantissa
        # move the descriptors of real pictures by 0.01 (L2, measured on an H100).
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=self.precision != 'fp32'):
            features = self.network.features(self.normalise(self.upload(images)))
        descriptors: Float32Array = self.network.pool(features).cpu().numpy()
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
        return x.contiguous(memory_format=self._layout)
