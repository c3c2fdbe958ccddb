# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: network, optimiser and counters in one safetensors file, written whole or not."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
import subprocess
from typing import Any

from safetensors import SafetensorError, safe_open
import torch
from torch import Tensor, nn

from netvlad_ros.errors import ConfigError, ModelError
from netvlad_ros.tensor_file import write_tensors

FORMAT_VERSION = 1

# What makes two runs one, of a run's provenance; the length of a run may be raised.
_SAME_RUN = ('recipe', 'start', 'data_hash', 'held_out_hash', 'train_layers', 'config')
_MAY_RISE = ('config.epochs', 'config.steps')


def commit_of_code() -> str:
    """Return the git commit of this package's checkout, '' if it is not one."""
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ['git', '-C', str(root), 'rev-parse', '--show-toplevel', '--short=12', 'HEAD'],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ''
    top, commit = done.stdout.splitlines()
    # An environment inside somebody's repository is not that repository's code.
    return commit if Path(top) == root else ''


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write a checkpoint beside the last one and rename it over that when it is safe on disk.

    :param state: JSON values: counters, random state, provenance.
    :raises ModelError: it cannot be written; the last checkpoint is still there.
    """
    tensors = {f'network.{k}': v.detach().cpu().contiguous()
               for k, v in network.state_dict().items()}  # fmt: skip
    for index, values in optimiser.state_dict()['state'].items():
        for key, value in values.items():
            if value is not None:
                tensors[f'optimiser.{index}.{key}'] = torch.as_tensor(value).cpu().contiguous()
    metadata = {'format_version': str(FORMAT_VERSION), 'state': json.dumps(state)}
    try:
        # Shared storage is refused by safetensors; a copy of each is the simple way around.
        write_tensors(path, {k: v.clone() for k, v in tensors.items()}, metadata)
    except OSError as error:
        raise ModelError(
            f'cannot write checkpoint {str(path)!r}: {error}; the last one is kept'
        ) from error


def append_log(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the log of a run, after the checkpoint it tells of.

    :raises ModelError: it cannot be written.
    """
    path = folder / 'log.jsonl'
    try:
        with path.open('a', encoding='utf-8') as stream:
            stream.write(json.dumps(entry) + '\n')
    except OSError as error:
        raise ModelError(f'cannot write {str(path)!r}: {error}; the checkpoint is kept') from error


def load_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Put a checkpoint into the network and the optimiser and return its state.

    :param provenance: JSON values of the run that continues. Recipe, start, data, trained layers
        and settings, as far as they are in it, must be those of the checkpoint.
    :raises ConfigError: the checkpoint is of another run.
    :raises ModelError: the file is damaged or belongs to another network.
    """
    tensors, state = _read(path)
    _check_same_run(path, state, provenance)
    _load_network(path, network, tensors)
    _load_optimiser(optimiser, tensors)
    return state


def load_weights(path: Path, network: nn.Module) -> dict[str, Any]:
    """Put only the network of a checkpoint into place and return the checkpoint's state.

    :raises ModelError: the file is damaged or belongs to another network.
    """
    tensors, state = _read(path)
    _load_network(path, network, tensors)
    return state


def _check_same_run(path: Path, state: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    wanted = {name: provenance[name] for name in _SAME_RUN if name in provenance}
    # The state went through JSON, which knows no tuples.
    now = _flat(json.loads(json.dumps(wanted)))
    stored = _flat({name: state.get(name) for name in wanted})
    for name in [*now, *(name for name in stored if name not in now)]:
        old, new = stored.get(name), now.get(name)
        if old == new:
            continue
        if name in _MAY_RISE and isinstance(old, int) and isinstance(new, int) and old < new:
            continue
        raise ConfigError(
            f'{str(path)!r} is a run with {name} {old!r}, now it is {new!r}: continue it as it '
            'was, or give another folder'
        )


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return nested values by dotted names, in their order."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f'{prefix}{name}.') if nested else {f'{prefix}{name}': value}
    return flat


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework='pt') as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        state: dict[str, Any] = json.loads(metadata['state'])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f'cannot read checkpoint {str(path)!r}: {error}') from error
    if metadata.get('format_version') != str(FORMAT_VERSION):
        raise ModelError(f'checkpoint {str(path)!r} is of another release: start again without it')
    return tensors, state


def _load_network(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = {k.removeprefix('network.'): v for k, v in tensors.items() if k.startswith('network.')}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise ModelError(f'checkpoint {str(path)!r} does not fit: {error}') from error


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    values = optimiser.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith('optimiser.'):
            _, index, key = name.split('.', 2)
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({**values, 'state': state})
