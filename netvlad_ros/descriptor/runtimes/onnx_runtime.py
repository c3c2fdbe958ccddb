# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inference with ONNX Runtime and whichever of its providers is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.locate import cache_folder
from netvlad_ros.descriptor.runtimes.onnx_export import INPUT, open_cached
from netvlad_ros.errors import ModelError
from netvlad_ros.types import Float32Array, UInt8Array

# Else releases since 1.32 keep what machine this is beside our cache, to send it.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

# Providers that may run a model on each kind of device, and our names for them.
PROVIDERS = {
    'cpu': {'onnx': 'CPUExecutionProvider', 'onnx-openvino': 'OpenVINOExecutionProvider'},
    'cuda': {'onnx': 'CUDAExecutionProvider', 'onnx-tensorrt': 'TensorrtExecutionProvider'},
}


class OnnxRuntime:
    """Runs the exported graph.

    :param provider: a value of ``PROVIDERS``.
    :param threads: CPU threads, 0 for ONNX Runtime's own choice.
    """

    def __init__(
        self, bundle: ModelBundle, device: str, precision: str, provider: str, threads: int
    ) -> None:
        names = PROVIDERS[device.partition(':')[0]]
        self.name = next(name for name, value in names.items() if value == provider)
        self.device = device
        self.precision = precision
        self._bundle = bundle
        self._provider = provider
        self._threads = threads
        self._one_by_one = device == 'cpu'
        self._sessions: dict[int, Any] = {}
        self._session(1)

    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images."""
        # A CPU is busy with one image; a static graph for each batch size would gain nothing.
        if self._one_by_one and len(images) > 1:
            return np.concatenate([self._run(images[i : i + 1]) for i in range(len(images))])
        return self._run(images)

    def _run(self, images: UInt8Array) -> Float32Array:
        rows: Float32Array = self._session(len(images)).run(None, {INPUT: images})[0]
        return rows

    def _session(self, batch: int) -> Any:
        if self._bundle.policy.resize != 'fixed':
            batch = 1  # one dynamic graph serves all
        if batch not in self._sessions:
            self._sessions[batch] = open_cached(
                self._bundle, self.precision, batch,
                lambda path: open_session(
                    path, self._provider, self.device, self.precision, self._threads
                ),
            )  # fmt: skip
        return self._sessions[batch]


def open_session(path: Path, provider: str, device: str, precision: str, threads: int) -> Any:
    """Return an ``onnxruntime.InferenceSession`` that runs on the provider.

    :raises ModelError: the file is damaged, or the provider does not start here.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait busily for the next image would take the robot's CPU from everyone else.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[(provider, _options(provider, device, precision))]
        )
    except Exception as error:  # onnxruntime raises classes of its binary module
        raise ModelError(f'{provider} cannot run {str(path)!r}: {error}') from error
    # ONNX Runtime falls back to the CPU with no more than a log line.
    if provider not in session.get_providers():
        raise ModelError(f'{provider} does not start here: {session.get_providers()} instead')
    return session


def _options(provider: str, device: str, precision: str) -> dict[str, str]:
    index = device.partition(':')[2] or '0'
    if provider == 'CUDAExecutionProvider':
        return {'device_id': index}
    if provider == 'TensorrtExecutionProvider':
        engines = cache_folder() / 'tensorrt'
        engines.mkdir(parents=True, exist_ok=True)
        return {
            'device_id': index,
            'trt_engine_cache_enable': 'True',
            'trt_engine_cache_path': str(engines),
            'trt_fp16_enable': str(precision == 'fp16'),
        }
    if provider == 'OpenVINOExecutionProvider':
        return {'device_type': 'CPU', 'precision': 'FP32'}
    return {}
