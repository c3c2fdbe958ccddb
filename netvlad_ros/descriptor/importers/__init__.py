# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Published weights to model bundles, recognised by what they hold.

Nothing is unpickled: torch files load with ``weights_only``, MATLAB files with SciPy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import re
from typing import Optional

from netvlad_ros.descriptor.bundle import ModelBundle, save_bundle
from netvlad_ros.descriptor.importers import relja
from netvlad_ros.descriptor.importers.parts import Imported
from netvlad_ros.descriptor.importers.torch_families import TORCH_FAMILIES
from netvlad_ros.descriptor.importers.torch_files import read_state
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.errors import ModelError

_MATLAB_5 = b'MATLAB 5.0 MAT-file'
_HDF5 = b'\x89HDF\r\n\x1a\n'

FAMILIES = ', '.join(['Relja/hloc .mat', *(family.title for family in TORCH_FAMILIES)])


def import_file(
    source: Path,
    output: Path,
    *,
    name: str = '',
    dim: Optional[int] = None,
    size_hw: Optional[tuple[int, int]] = None,
) -> ModelBundle:
    """Convert a file of published weights to a bundle and write it.

    :param name: of the model; '' makes one of the file's name.
    :param dim: keep this many components of the whitening; None keeps all.
    :param size_hw: input height and width that replace the family's own policy.
    :raises ModelError: the file is missing, damaged or of no known family; the message says what
        was found.
    """
    imported = _read(source)
    network = imported.network
    if dim is not None:
        if network.whitening is None:
            raise ModelError(
                f'{str(source)!r} has no whitening, so its {network.dim} dimensions cannot be '
                f'cut to {dim!r}'
            )
        if not 1 <= dim <= network.whitening.dim:
            raise ModelError(f'dim is {dim!r}, allowed: 1 to {network.whitening.dim}')
        network.whitening = network.whitening.cropped(dim)
    if size_hw is not None:
        policy = replace(network.policy, resize='fixed', height=size_hw[0], width=size_hw[1])
        network = DescriptorNetwork(
            policy, network.backbone, network.pooling, network.whitening, network.local_projection
        )
    info = replace(imported.info, name=name or model_name(source))
    return save_bundle(output, network, info)


def model_name(source: Path) -> str:
    """Return a model name made of a file's name."""
    stem = re.sub(r'(\.(mat|pth|pt|tar|ckpt))+$', '', source.name)
    return re.sub(r'[^A-Za-z0-9._-]+', '_', stem).strip('._-') or 'imported'


def _read(source: Path) -> Imported:
    try:
        with source.open('rb') as file:
            head = file.read(128)
    except OSError as error:
        raise ModelError(f'cannot read {str(source)!r}: {error}') from error
    if head.startswith(_MATLAB_5):
        return relja.read(source)
    if head.startswith(_HDF5) or head.startswith(b'MATLAB 7.3'):
        raise ModelError(f'{str(source)!r} is a MATLAB 7.3 (HDF5) file: save it again with -v7')
    state = read_state(source)
    for family in TORCH_FAMILIES:
        imported = family.convert(state)
        if imported is not None:
            return imported
    shown = ', '.join(f'{key} {tuple(value.shape)}' for key, value in list(state.items())[:4])
    raise ModelError(
        f'{str(source)!r} holds {len(state)} tensors of no known family ({shown}, ...); known: '
        f'{FAMILIES}'
    )
