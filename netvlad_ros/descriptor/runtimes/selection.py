# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Chooses the engine that runs a model on this machine: the fastest that agrees with torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
import logging
from typing import Protocol

import numpy as np
import torch

from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor.backbones import Backbone
from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.runtimes.choices import ChoiceCache
from netvlad_ros.descriptor.runtimes.onnx_runtime import PROVIDERS, OnnxRuntime
from netvlad_ros.descriptor.runtimes.openvino_runtime import OpenVinoRuntime
from netvlad_ros.descriptor.runtimes.prepared import DTYPES, random_images
from netvlad_ros.descriptor.runtimes.timing import best_times_s
from netvlad_ros.descriptor.runtimes.torch_runtime import TorchRuntime
from netvlad_ros.errors import ConfigError, ModelError
from netvlad_ros.types import Float32Array, UInt8Array

_log = logging.getLogger(__name__)

# Largest L2 distance to torch in fp32 on the same device, and least cosine in half precision.
MAX_L2_FP32 = 1e-5
MIN_COSINE_HALF = 0.9995

_TIMING_BUDGET_S = 3.0


class Runtime(Protocol):
    """An engine that has a model loaded."""

    name: str
    device: str
    precision: str

    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images of one size."""
        ...


Factory = Callable[[], Runtime]


def make_runtime(bundle: ModelBundle, config: DescriptorConfig) -> Runtime:
    """Return the engine that a config asks for; 'auto' is measured once and remembered.

    :raises ConfigError: it is not installed or cannot run here.
    """
    device = resolve_device(config.device)
    precision = config.precision
    if precision == 'auto':
        precision = 'fp16' if device.startswith('cuda') else 'fp32'
    if config.threads:
        torch.set_num_threads(config.threads)
    if not isinstance(bundle.network.backbone, Backbone):
        return _local_features(bundle, config)
    factories = candidates(bundle, device, precision, config.threads)
    if config.runtime != 'auto':
        family = config.runtime
        factories = {n: f for n, f in factories.items() if n.split('-')[0] == family}
        # Convolutions on either device want this layout; only 'auto' measures the other.
        factories.pop('torch', None)
        if not factories:
            raise ConfigError(
                f'runtime is {family!r}, which is not installed for {device}: use torch or auto'
            )
    if len(factories) == 1 and precision == 'fp32':
        return next(iter(factories.values()))()
    cache = ChoiceCache()
    key = _choice_key(bundle, device, precision, config)
    remembered = cache.get(key)
    if remembered in factories:
        try:
            return factories[remembered]()
        except ModelError as error:
            if len(factories) == 1:
                raise
            _log.warning('the remembered runtime does not start, another is chosen: %s', error)
    chosen = fastest(bundle, factories, device, precision)
    cache.put(key, chosen.name)
    return chosen


def candidates(
    bundle: ModelBundle, device: str, precision: str, threads: int
) -> dict[str, Factory]:
    """Return the engines that are installed for a device, by name; torch is always there."""
    network = bundle.network
    found: dict[str, Factory] = {
        'torch-channels-last': lambda: TorchRuntime(network, device, precision, True),
        'torch': lambda: TorchRuntime(network, device, precision, False),
    }
    if find_spec('onnxruntime') and find_spec('onnxscript'):
        import onnxruntime

        installed = onnxruntime.get_available_providers()
        for name, provider in PROVIDERS[device.partition(':')[0]].items():
            if provider in installed:
                found[name] = lambda p=provider: OnnxRuntime(  # type: ignore[misc]
                    bundle, device, precision, p, threads
                )
    if device == 'cpu' and find_spec('openvino') and find_spec('onnxscript'):
        found['openvino'] = lambda: OpenVinoRuntime(bundle, precision, threads)
    return found


def fastest(
    bundle: ModelBundle, factories: dict[str, Factory], device: str, precision: str
) -> Runtime:
    """Return the fastest engine of those that start and agree with torch in fp32.

    :raises ConfigError: none does.
    """
    policy = bundle.policy
    images = random_images(1, policy.height, policy.width)
    reference = TorchRuntime(bundle.network, device, 'fp32', False)(images)
    running: dict[str, Runtime] = {}
    for name, factory in factories.items():
        try:
            runtime = factory()
            result = runtime(images)
        except Exception as error:  # an engine that fails here must not stop the others
            _log.info('runtime %s is left out: %s', name, error)
            continue
        if agrees(result, reference, precision):
            running[name] = runtime
        else:
            _log.warning('runtime %s is left out: it differs from torch', name)
    if not running:
        raise ConfigError(
            f'no runtime computes {bundle.model_id} on {device} in {precision} as torch does in '
            'fp32: use precision fp32'
        )
    calls = {name: partial(runtime, images) for name, runtime in running.items()}
    times = best_times_s(calls, _TIMING_BUDGET_S)
    chosen = min(times, key=times.__getitem__)
    _log.info('runtime %s, of %s', chosen, {n: f'{t * 1e3:.1f} ms' for n, t in times.items()})
    return running[chosen]


def agrees(result: Float32Array, reference: Float32Array, precision: str) -> bool:
    """Return whether descriptors are near enough to torch's fp32 ones for a precision."""
    if not np.isfinite(result).all():
        return False
    if precision == 'fp32':
        return bool(np.linalg.norm(result - reference, axis=1).max() <= MAX_L2_FP32)
    return bool((result * reference).sum(axis=1).min() >= MIN_COSINE_HALF)


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


def _local_features(bundle: ModelBundle, config: DescriptorConfig) -> Runtime:
    """Return the engine of a model whose features OpenCV computes: torch on the CPU, fp32."""
    if config.runtime not in ('auto', 'torch') or config.precision not in ('auto', 'fp32'):
        raise ConfigError(
            f'{bundle.model_id} runs with runtime torch and precision fp32 only, got '
            f'{config.runtime!r} and {config.precision!r}'
        )
    return TorchRuntime(bundle.network, 'cpu', 'fp32', False)


def _choice_key(bundle: ModelBundle, device: str, precision: str, config: DescriptorConfig) -> str:
    """Return what a measured choice depends on, besides the machine."""
    versions = []
    for package in ('torch', 'onnxruntime', 'onnxruntime-gpu', 'openvino'):
        try:
            versions.append(f'{package} {metadata.version(package)}')
        except metadata.PackageNotFoundError:
            continue
    assert precision in DTYPES
    model = f'{bundle.model_id} {bundle.policy.width}x{bundle.policy.height}'
    threads = config.threads or torch.get_num_threads()
    return '; '.join([model, device, precision, config.runtime, f'{threads} threads', *versions])
