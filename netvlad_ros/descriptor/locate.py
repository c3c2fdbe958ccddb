# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which file a model name means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union

from netvlad_ros.descriptor.registry import read_registry
from netvlad_ros.errors import ModelError

SUFFIX = '.safetensors'


def cache_folder() -> Path:
    """Return the user's cache folder of this package, which need not exist."""
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(base).expanduser() / 'netvlad_ros'


def share_folder() -> Path | None:
    """Return the ``models`` folder of the checkout or of the installed share, if there is one."""
    here = Path(__file__).resolve()
    roots = [here.parents[2], *(p / 'share' / 'netvlad_ros' for p in here.parents)]
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    roots += [Path(prefix) / 'share' / 'netvlad_ros' for prefix in prefixes if prefix]
    return next((r / 'models' for r in roots if (r / 'models' / 'registry.yaml').is_file()), None)


def model_folders() -> list[Path]:
    """Return the folders that are searched for bundles, first to last."""
    folders = []
    if own := os.environ.get('NETVLAD_MODELS'):
        folders.append(Path(own).expanduser())
    if share := share_folder():
        folders.append(share)
    folders.append(cache_folder() / 'models')
    return folders


def find_model(model: Union[str, Path]) -> Path:
    """Return the bundle's file for a path, a registry name or 'default'.

    :raises ModelError: there is no such file; the message says where it was looked for.
    """
    name = str(model)
    if name.endswith(SUFFIX) or os.sep in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelError(f'model file {name!r} does not exist')
        return path
    registry = read_registry(share_folder())
    if name == 'default':
        name = registry.default
        if not name:
            raise ModelError("no default model is registered: give a bundle's file")
    folders = model_folders()
    for folder in folders:
        path = folder / f'{name}{SUFFIX}'
        if path.is_file():
            return path
    looked = ', '.join(str(folder) for folder in folders)
    if name in registry.models:
        raise ModelError(
            f"model {name!r} is not on this machine (looked in {looked}): run 'netvlad models "
            f"get {name}'"
        )
    installed = {p.stem for folder in folders for p in folder.glob(f'*{SUFFIX}')}
    known = ', '.join(sorted(installed | set(registry.models))) or 'none'
    raise ModelError(f'model {name!r} is unknown; known: {known}; looked in {looked}')
