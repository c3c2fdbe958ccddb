# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Memory maps whose whole file is on the disk before anything is computed for it."""

from __future__ import annotations

from contextlib import suppress
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import InputError


def new_array_file(
    path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> np.memmap[Any, np.dtype[Any]]:
    """Return a new, zeroed ``.npy`` memory map of a shape, its folder made; an old file goes.

    :raises InputError: the disk is full or the folder cannot be written; no file is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mapped = np.lib.format.open_memmap(path, 'w+', np.dtype(dtype), shape)
        # The file is sparse so far: a disk that fills up later would kill the process (SIGBUS).
        if hasattr(os, 'posix_fallocate'):  # macOS has none
            with path.open('r+b') as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        needed_mb = np.dtype(dtype).itemsize * math.prod(shape) / 1e6
        raise InputError(
            f'cannot write {str(path)!r}, which needs {needed_mb:.1f} MB: {error}'
        ) from error
    return mapped


def let_go(array: npt.NDArray[Any]) -> None:
    """Take the pages of a memory map out of this process; they stay in the file and its cache.

    Without it a process that reads or writes all of a large file seems to need as much memory.
    """
    mapped = getattr(array, '_mmap', None)
    if mapped is not None and hasattr(mmap, 'MADV_DONTNEED'):
        mapped.madvise(mmap.MADV_DONTNEED)
