# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Chooses the engine that runs a model on this machine."""

from __future__ import annotations

from typing import Protocol

import torch

from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.runtimes.torch_runtime import TorchRuntime
from netvlad_ros.errors import ConfigError
from netvlad_ros.types import Float32Array, UInt8Array


class Runtime(Protocol):
    """An engine that has a model loaded."""

    name: str
    device: str
    precision: str

    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images of one size."""
        ...


def make_runtime(bundle: ModelBundle, config: DescriptorConfig) -> Runtime:
    """Return the engine that a config asks for.

    :raises ConfigError: it cannot run here.
    """
    device = resolve_device(config.device)
    precision = config.precision
    if precision == 'auto':
        precision = 'fp16' if device.startswith('cuda') else 'fp32'
    if config.threads:
        torch.set_num_threads(config.threads)
    return TorchRuntime(bundle.network, device, precision, channels_last=True)


def resolve_device(device: str) -> str:
    """Return 'cpu' or 'cuda:N' for a configured device.

    :raises ConfigError: the name is unknown or torch sees no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == 'auto':
        return 'cuda:0' if count else 'cpu'
    if device == 'cpu':
        return device
    kind, _, index = device.partition(':')
    if kind != 'cuda' or (index and not index.isdigit()):
        raise ConfigError(f'device is {device!r}, allowed: auto, cpu, cuda, cuda:N')
    if int(index or 0) >= count:
        raise ConfigError(f'device is {device!r}, but torch sees {count} CUDA devices: use cpu')
    return f'cuda:{int(index or 0)}'
