# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Inference with OpenVINO on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.runtimes.onnx_export import open_cached
from netvlad_ros.errors import ModelError
from netvlad_ros.types import Float32Array, UInt8Array

_PRECISIONS = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}


class OpenVinoRuntime:
    """Runs the exported graph, one image at a time.

    :param precision: OpenVINO's inference precision; without it, it rounds where the CPU can.
    :param threads: CPU threads, 0 for OpenVINO's own choice.
    """

    def __init__(self, bundle: ModelBundle, precision: str, threads: int) -> None:
        self.name = 'openvino'
        self.device = 'cpu'
        self.precision = precision
        self._request = open_cached(
            bundle, 'fp32', 1, lambda path: compile_openvino(path, precision, threads)
        ).create_infer_request()

    def __call__(self, images: UInt8Array) -> Float32Array:
        """Return (N, dim) float32 unit rows of (N, H, W, 3) uint8 RGB images."""
        rows = [
            # The outputs are the request's own memory, which the next image overwrites.
            np.array(self._request.infer([images[i : i + 1]], share_inputs=True)[0])
            for i in range(len(images))
        ]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)


def compile_openvino(path: Any, precision: str, threads: int) -> Any:
    """Return an ``openvino.CompiledModel`` of an ONNX file, tuned for latency.

    :raises ModelError: the file is damaged, or OpenVINO cannot run it.
    """
    import openvino

    options: dict[str, Any] = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': _PRECISIONS[precision],
    }
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    core = openvino.Core()
    try:
        return core.compile_model(core.read_model(str(path)), 'CPU', options)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f'OpenVINO cannot run {str(path)!r}: {reason}') from error
