# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The network as an ONNX graph: uint8 RGB images in, unit descriptors out."""

from __future__ import annotations

import atexit
from collections.abc import Callable
import contextlib
import functools
import io
import logging
import os
from pathlib import Path
import shutil
import tempfile
import time
from typing import TypeVar
import warnings

import torch

from netvlad_ros.descriptor.bundle import ModelBundle
from netvlad_ros.descriptor.locate import cache_folder
from netvlad_ros.descriptor.runtimes.prepared import for_inference, random_images
from netvlad_ros.errors import ModelError

T = TypeVar('T')

INPUT, OUTPUT = 'images', 'descriptors'

# protobuf cannot hold more in one file.
_MAX_BYTES = 2_000_000_000
# Part of the name of cached graphs; raise it when the graph of one model changes.
_GRAPH_VERSION = 3

_log = logging.getLogger(__name__)


def export_onnx(
    bundle: ModelBundle,
    path: Path,
    *,
    height: int,
    width: int,
    batch: int = 1,
    dynamic: bool = False,
    precision: str = 'fp32',
) -> None:
    """Write the network as ONNX; normalisation, pooling and whitening are part of the graph.

    The input ``images`` is (batch, height, width, 3) uint8 RGB, the output ``descriptors``
    (batch, dim) float32.

    :param dynamic: let batch, height and width vary; static graphs are faster on most engines.
    :raises ModelError: the network cannot be expressed in ONNX or the file cannot be written.
    """
    network = for_inference(bundle.network, precision)
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if size > _MAX_BYTES:
        raise ModelError(f'{bundle.model_id} has {size} bytes, an ONNX file holds {_MAX_BYTES}')
    example = torch.from_numpy(random_images(2 if dynamic else batch, height, width))
    axes = None
    if dynamic:
        any_size = torch.export.Dim.DYNAMIC
        axes = ({0: any_size, 1: any_size, 2: any_size},)
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    for chatty in ('onnx_ir', 'onnxscript'):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The exporter reports its steps on stdout, which belongs to the command line.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                network,
                (example,),
                str(partial),
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=axes,
                verbose=False,
            )
        with partial.open('rb') as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ModelError(f'cannot write {str(path)!r}: {error}') from error
    except Exception as error:  # the exporter raises whatever its passes raise
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(f'{bundle.model_id} cannot be exported to ONNX: {first_line}') from error
    finally:
        partial.unlink(missing_ok=True)


def cached_onnx(bundle: ModelBundle, precision: str, batch: int) -> Path:
    """Return the graph of the bundle's default input, exported once for each user and model.

    Models that take images of any size get a dynamic graph.
    """
    policy = bundle.policy
    dynamic = policy.resize != 'fixed'
    shape = 'dynamic' if dynamic else f'{batch}x{policy.height}x{policy.width}'
    name = f'{bundle.model_id}_{precision}_{shape}_v{_GRAPH_VERSION}.onnx'
    path = cache_folder() / 'onnx' / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError:
        path = _folder_of_this_process() / name
        if path.is_file():
            return path
        _log.warning(
            '%s cannot be written: the graph is exported at every start; XDG_CACHE_HOME names '
            'another folder', cache_folder(),
        )  # fmt: skip
    export_onnx(
        bundle,
        path,
        height=policy.height,
        width=policy.width,
        batch=batch,
        dynamic=dynamic,
        precision=precision,
    )
    return path


@functools.cache
def _folder_of_this_process() -> Path:
    """Return a temporary folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix='netvlad_ros_'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_cached(
    bundle: ModelBundle, precision: str, batch: int, open_graph: Callable[[Path], T]
) -> T:
    """Return what opens the cached graph; one that a power cut left short is exported again.

    :raises ModelError: the engine cannot run the graph either way.
    """
    started_s = time.time()
    path = cached_onnx(bundle, precision, batch)
    try:
        return open_graph(path)
    except ModelError as error:
        if path.stat().st_mtime >= started_s:
            raise  # it was exported just now
        _log.warning('%s: exporting the graph again', error)
        path.unlink(missing_ok=True)
        return open_graph(cached_onnx(bundle, precision, batch))
