# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""State dicts out of torch checkpoints, without running anything that they contain."""

from __future__ import annotations

from pathlib import Path
import pickle
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netvlad_ros.errors import ModelError

# Where trainers put the weights, beside epochs, recalls and optimisers.
_NESTED = ('state_dict', 'model_state_dict')


def read_state(source: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without DataParallel's ``module`` in them.

    :raises ModelError: the file is damaged, no checkpoint, or holds more than plain values.
    """
    try:
        with torch.serialization.safe_globals(_numpy_values()):
            content = torch.load(source, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        # torch goes on to advise loading the file without protection.
        found = re.search(r'Unsupported .*?(?= was not|$)', str(error), re.MULTILINE)
        reason = found.group() if found else 'it does not parse'
        raise ModelError(
            f'{str(source)!r} is no torch checkpoint of plain values: {reason}'
        ) from error
    except Exception as error:  # damaged archives raise many kinds
        raise ModelError(f'{str(source)!r} is no readable torch checkpoint: {error}') from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelError(f'{str(source)!r} holds a {type(content).__name__}, expected a dict')
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        keys = ', '.join(str(k) for k in list(content)[:8]) or 'nothing'
        raise ModelError(f'{str(source)!r} holds no tensors; it holds: {keys}')
    return {_plain(key): value.float() for key, value in tensors.items()}


def _plain(key: str) -> str:
    """Drop the parts that DataParallel adds: 'encoder.module.0.weight' -> 'encoder.0.weight'."""
    return '.'.join(part for part in key.split('.') if part != 'module')


def _numpy_values() -> list[Any]:
    """Return what NumPy's numbers and number arrays are made of in a pickle, old and new names."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    dtypes = [type(np.dtype(kind)) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', 'i1', '?')]
    functions = [multiarray.scalar, multiarray._reconstruct]
    named = [
        (function, f'numpy.{core}.multiarray.{function.__name__}')
        for function in functions
        for core in ('core', '_core')
    ]
    return [*named, np.ndarray, np.dtype, *dtypes]
