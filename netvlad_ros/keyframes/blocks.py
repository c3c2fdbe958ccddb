# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Append-only descriptor blocks of a fixed number of rows, in files or in memory."""

from __future__ import annotations

from collections.abc import Sequence
import errno
import mmap
import os
from pathlib import Path
import threading
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes.block_file import BlockFile, explain_sync, row_checksum, sync_folder
from netvlad_ros.types import Float32Array

BLOCK_BYTES = 16 << 20  # one allocation; 1024 rows of 4096 float32
# Each creation waits for the file system's journal, and an add that falls into it waits as well;
# files that are empty take no room.
FILES_AT_ONCE = 4
TAIL_ROWS = 1024  # more than a robot adds between two rounds of maintenance
# NumPy copies these with the interpreter locked: an add waits no longer than for this much.
_READ_BYTES = 1 << 20


def rows_per_block(dim: int, dtype: str) -> int:
    """Return the largest power of two of rows whose descriptors fit into ``BLOCK_BYTES``."""
    rows = max(1, BLOCK_BYTES // (dim * np.dtype(dtype).itemsize))
    return 1 << min(16, rows.bit_length() - 1)


def block_file(folder: Path, number: int, dim: int, dtype: str, capacity: int) -> BlockFile:
    """Return the file of a block of a map."""
    return BlockFile(folder / f'block_{number:06d}.bin', number, dim, dtype, capacity)


class Block:
    """One block; ``rows`` (capacity, dim) is what the index scans.

    :param file: where it is kept; None keeps it in memory.
    :param mode: 'create', 'append' or 'read'.
    """

    def __init__(
        self, file: Optional[BlockFile], dim: int, dtype: str, capacity: int, mode: str
    ) -> None:
        self.file = file
        self._fd: Optional[int] = None
        self.rows: npt.NDArray[Any]
        if file is None:
            self.rows = np.zeros((capacity, dim), dtype)
            return
        if mode == 'create':
            self._fd = file.create()
        elif mode == 'append':
            self._fd = os.open(file.path, os.O_RDWR | os.O_CLOEXEC)
            os.ftruncate(self._fd, file.full_bytes)
        self.rows = file.map()

    def write(self, row: int, keyframe_id: int, descriptor: npt.NDArray[Any]) -> int:
        """Store a descriptor (dim,) of the block's dtype in a row; returns its checksum."""
        data = descriptor.tobytes()
        if self.file is None:
            self.rows[row] = descriptor
            return row_checksum(keyframe_id, data)
        assert self._fd is not None
        return self.file.write(self._fd, row, keyframe_id, data)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self._fd is not None:
            os.fdatasync(self._fd)

    def release(self) -> None:
        """Tell the system that mapped pages need not stay in this process's memory."""
        if self.file is not None and len(self.rows):
            self.rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def close(self, used_rows: Optional[int] = None) -> None:
        """Close the file for writing; after ``used_rows`` it is cut, without any removed."""
        if self._fd is None:
            return
        assert self.file is not None
        if used_rows is not None:
            self.rows = self.rows[:used_rows]
            os.ftruncate(self._fd, self.file.data_offset + used_rows * self.file.row_bytes)
        os.close(self._fd)
        self._fd = None
        if used_rows == 0:
            self.file.path.unlink(missing_ok=True)


class DescriptorBlocks:
    """The descriptors of a map by row; rows are dense and in the order of insertion.

    :param folder: where ``block_000000.bin`` and so on lie; None keeps them in memory.
    :param mode: 'append' for the writer, 'read' for readers.
    :param is_complete: refuse missing, cut or foreign files; without, their rows cannot be read.
    """

    def __init__(
        self, folder: Optional[Path], dim: int, dtype: str, count: int, mode: str = 'append',
        rows: Optional[int] = None, is_complete: bool = True,
    ) -> None:
        self.folder, self.dim, self.dtype, self._mode = folder, dim, dtype, mode
        self.rows_per_block = rows or rows_per_block(dim, dtype)
        self.row_bytes = dim * np.dtype(dtype).itemsize
        self.blocks: list[Block] = []
        self._unsynced: set[int] = set()
        self._written_in = 0  # the block that the last write went to; none before it is written to
        self._first_open = 0  # all blocks before this one are closed for writing
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        if is_complete and folder is not None:
            self._check_complete(folder, count)
        for number in range(-(-count // self.rows_per_block)):
            last = (number + 1) * self.rows_per_block >= count
            self.blocks.append(self._block(number, mode if last else 'read'))

    def _block(self, number: int, mode: str) -> Block:
        shape = self.dim, self.dtype, self.rows_per_block
        file = None if self.folder is None else block_file(self.folder, number, *shape)
        return Block(file, *shape, mode)

    def encode(self, descriptor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the descriptor as it is stored."""
        return np.ascontiguousarray(descriptor, dtype=self.dtype)

    def write(self, row: int, keyframe_id: int, stored: npt.NDArray[Any]) -> int:
        """Store an encoded descriptor in the next row; returns its checksum.

        :raises MapError: the disk is full or cannot be written.
        """
        number, offset = divmod(row, self.rows_per_block)
        try:
            if number == len(self.blocks):
                self.prepare(row)  # waits if maintenance is at it
            self._written_in = number
            checksum = self.blocks[number].write(offset, keyframe_id, stored)
            # Marked last: a sync that began before the write does not cover it.
            self._unsynced.add(number)
            return checksum
        except OSError as error:
            raise MapError(_explain(error, self.folder)) from error

    def prepare(self, row: int) -> None:
        """Make the block that ``row`` will be in, if it is not there yet."""
        with self._lock:
            if row // self.rows_per_block == len(self.blocks):
                self.blocks += self._new_blocks(1 if self.folder is None else FILES_AT_ONCE)

    def _new_blocks(self, count: int) -> list[Block]:
        made: list[Block] = []
        try:
            for _ in range(count):
                made.append(self._block(len(self.blocks) + len(made), 'create'))
            # Rows may be lost in a power cut, the format of the files may not.
            for block in made:
                block.sync()
            self._sync_folder()
        except BaseException:
            for block in made:
                block.close(0)
            raise
        return made

    def release(self) -> None:
        """Tell the system that mapped pages need not stay in this process's memory."""
        for block in self.blocks:
            block.release()

    def refresh(self, count: int) -> None:
        """Follow a writer in another process to its first ``count`` rows."""
        size = self.rows_per_block
        for number in range(-(-count // size)):
            needed = min(size, count - number * size)
            if number == len(self.blocks):
                self.blocks.append(self._block(number, 'read'))
            elif len(self.blocks[number].rows) < needed:
                self.blocks[number].close()
                self.blocks[number] = self._block(number, 'read')

    def _check_complete(self, folder: Path, count: int) -> None:
        """Refuse cut files before the writer makes them long again.

        The last rows may be missing: a power cut under ``durability: normal`` does that.
        """
        shape = self.dim, self.dtype, self.rows_per_block
        for number in range(-(-count // self.rows_per_block)):
            file = block_file(folder, number, *shape)
            if fault := file.check_header():
                raise MapError(f"{file.path}: {fault}; see 'netvlad map verify'")
            needed = min(self.rows_per_block, count - number * self.rows_per_block)
            stored = file.rows_in_file()
            if stored < needed and number * self.rows_per_block + stored < count - TAIL_ROWS:
                raise MapError(
                    f'{file.path} was cut, the descriptors of {needed - stored} keyframes are '
                    f"missing: 'netvlad map verify --salvage NEW' saves the others"
                )

    def damaged_rows(
        self, first: int, ids: Sequence[int], checksums: Sequence[int]
    ) -> list[int]:
        """Return the rows from ``first`` on whose stored bytes do not have their checksum."""
        bad, row, end = [], first, first + len(ids)
        while row < end:
            number, offset = divmod(row, self.rows_per_block)
            stop = min(end, (number + 1) * self.rows_per_block)
            part = slice(row - first, stop - first)
            if (file := self.blocks[number].file) is not None:
                found = file.damaged_rows(offset, ids[part], checksums[part])
                bad += [number * self.rows_per_block + inside for inside in found]
            row = stop
        return bad

    def read(self, rows: npt.NDArray[np.int64]) -> Float32Array:
        """Return the descriptors of some rows as (N, dim) float32."""
        out = np.empty((len(rows), self.dim), np.float32)
        order = np.argsort(rows, kind='stable')
        step = max(1, _READ_BYTES // self.row_bytes)
        bounds = np.arange(0, self.rows_per_block * (len(self.blocks) + 1), self.rows_per_block)
        edges = np.searchsorted(rows[order], bounds)
        parts = zip(self.blocks, bounds, edges[:-1], edges[1:], strict=False)
        for block, first, low, high in parts:
            for start in range(low, high, step):
                part = order[start : min(high, start + step)]
                out[part] = np.take(block.rows, rows[part] - first, 0)
        return out

    def sync(self) -> None:
        """Wait until everything written before the call is on the disk.

        :raises MapError: the disk does not take it; the next call tries again.
        """
        # One at a time: a second call must wait for what the first has taken upon itself.
        with self._sync_lock:
            for number in sorted(self._unsynced):
                # Discarded first: a row written meanwhile marks the block again.
                self._unsynced.discard(number)
                try:
                    self.blocks[number].sync()
                except OSError as error:
                    self._unsynced.add(number)
                    raise MapError(explain_sync(error, self.folder)) from error
            while self._first_open < self._written_in and self._first_open not in self._unsynced:
                self.blocks[self._first_open].close()
                self._first_open += 1

    def _sync_folder(self) -> None:
        if self.folder is not None:
            sync_folder(self.folder)

    def close(self, count: int) -> None:
        """Close all files and cut the last one after row ``count``."""
        for number, block in enumerate(self.blocks):
            used = max(0, count - number * self.rows_per_block)
            block.close(used if used < self.rows_per_block else None)


def _explain(error: OSError, folder: Optional[Path]) -> str:
    if error.errno == errno.ENOSPC:
        return f'disk is full, keyframe not stored in {folder}; what is stored is intact'
    return f'cannot write to {folder}: {error.strerror}; keyframe not stored'
