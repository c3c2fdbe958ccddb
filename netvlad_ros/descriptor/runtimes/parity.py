# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How near an exported graph is to the network in torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.runtimes.onnx_export import INPUT
from netvlad_ros.descriptor.runtimes.onnx_runtime import open_session
from netvlad_ros.descriptor.runtimes.openvino_runtime import compile_openvino
from netvlad_ros.descriptor.runtimes.prepared import random_images
from netvlad_ros.descriptor.runtimes.selection import agrees
from netvlad_ros.descriptor.runtimes.torch_runtime import TorchRuntime
from netvlad_ros.types import Float32Array


def compare_to_torch(
    bundle: ModelBundle, path: Path, batch: int, height: int, width: int, precision: str
) -> dict[str, dict[str, float | bool]]:
    """Run an ONNX file on the CPU with each installed engine and compare with torch in fp32.

    :returns: by engine: ``max_l2`` and ``min_cosine`` over the images, and ``agrees``.
    """
    images = random_images(batch, height, width)
    reference = TorchRuntime(bundle.network, 'cpu', 'fp32', False)(images)
    report = {}
    if find_spec('onnxruntime'):
        session = open_session(path, 'CPUExecutionProvider', 'cpu', precision, 0)
        rows = session.run(None, {INPUT: images})[0]
        report['onnxruntime'] = _compare(rows, reference, precision)
    if find_spec('openvino'):
        rows = np.array(compile_openvino(path, 'fp32', 0)(images)[0])
        report['openvino'] = _compare(rows, reference, precision)
    return report


def _compare(
    rows: Float32Array, reference: Float32Array, precision: str
) -> dict[str, float | bool]:
    return {
        'max_l2': float(np.linalg.norm(rows - reference, axis=1).max()),
        'min_cosine': float((rows * reference).sum(axis=1).min()),
        'agrees': agrees(rows, reference, precision),
    }
