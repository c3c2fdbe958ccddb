# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tensors in one safetensors file, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside the file and rename over it when all is safe on disk.

    :raises OSError: it cannot be written; what was there before still is.
    """
    partial = path.with_name(f'{path.name}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        save_file(dict(tensors), partial, metadata=metadata)
        # safetensors lets the owner alone read; others may, as the umask says of any file.
        partial.chmod(mode)
        with partial.open('rb') as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(str(error)) from error
