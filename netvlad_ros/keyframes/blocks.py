# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Append-only descriptor blocks of a fixed number of rows, in files or in memory.

A block file is self-contained, so that its descriptors can be saved and checked without the
database::

    offset 0     64 bytes: magic, format version, dim, item size, rows per block, number of the
                 block, checksum of these (little endian, see ``_HEADER``)
    offset 64    rows x 16 bytes: keyframe id (uint64), CRC-32 of id and descriptor (uint32), 0
    offset data  rows x dim items, contiguous; data is the next multiple of 4096

The file is sparse at its full length while it is written (so that it can be mapped once) and cut
after its last row when the map is closed. Rows are written with pwrite: a full disk is an error
of the call, never a signal.
"""

from __future__ import annotations

from collections.abc import Sequence
import errno
import mmap
import os
from pathlib import Path
import struct
import threading
from typing import Any, Optional
import zlib

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import MapError
from netvlad_ros.types import Float32Array

BLOCK_BYTES = 16 << 20  # one allocation; 1024 rows of 4096 float32
_MAGIC = b'NVLADBLK'
_VERSION = 1
_HEADER = struct.Struct('<8sIIIIQ')
_ENTRY = struct.Struct('<QII')
_HEADER_BYTES = 64
_PAGE = 4096
# NumPy copies these with the interpreter locked: an add waits no longer than for this much.
_READ_BYTES = 1 << 20


def rows_per_block(dim: int, dtype: str) -> int:
    """Return the largest power of two of rows whose descriptors fit into ``BLOCK_BYTES``."""
    rows = max(1, BLOCK_BYTES // (dim * np.dtype(dtype).itemsize))
    return 1 << min(16, rows.bit_length() - 1)


def row_checksum(keyframe_id: int, data: bytes) -> int:
    """Return the CRC-32 of a keyframe id and the bytes of its descriptor."""
    return zlib.crc32(data, zlib.crc32(keyframe_id.to_bytes(8, 'little')))


class Block:
    """One block; ``rows`` (capacity, dim) is what the index scans.

    :param path: the file; None keeps the block in memory.
    """

    def __init__(
        self, path: Optional[Path], number: int, dim: int, dtype: str, capacity: int, mode: str
    ) -> None:
        self.path, self.number, self.capacity = path, number, capacity
        self._dtype, self._dim = np.dtype(dtype), dim
        self._row_bytes = dim * self._dtype.itemsize
        self._data_offset = -(-(_HEADER_BYTES + capacity * _ENTRY.size) // _PAGE) * _PAGE
        self._fd: Optional[int] = None
        self.stored = capacity  # rows that the file had room for when it was opened
        self.rows: npt.NDArray[Any]
        if path is None:
            self.rows = np.zeros((capacity, dim), self._dtype)
        else:
            self._open(path, mode)

    def _header(self) -> bytes:
        head = _HEADER.pack(
            _MAGIC, _VERSION, self._dim, self._dtype.itemsize, self.capacity, self.number
        )
        return (head + struct.pack('<I', zlib.crc32(head))).ljust(_HEADER_BYTES, b'\0')

    def _open(self, path: Path, mode: str) -> None:
        full = self._data_offset + self.capacity * self._row_bytes
        if mode == 'create':
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            _write_all(self._fd, self._header(), 0)
            os.ftruncate(self._fd, full)
        else:
            if fault := self.check_header():
                raise MapError(f"{path}: {fault}; see 'netvlad map verify'")
            self.stored = self._rows_in_file()
            if mode == 'append':
                self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                os.ftruncate(self._fd, full)
        # Beyond the end of a cut file the mapping would be a bus error: map what is there.
        rows = self._rows_in_file()
        if rows == 0:
            self.rows = np.zeros((0, self._dim), self._dtype)
        else:
            self.rows = np.memmap(
                path, self._dtype, mode='r', offset=self._data_offset, shape=(rows, self._dim)
            )

    def _rows_in_file(self) -> int:
        assert self.path is not None
        size = self.path.stat().st_size
        return max(0, min(self.capacity, (size - self._data_offset) // self._row_bytes))

    def check_header(self) -> Optional[str]:
        """Return what is wrong with the header of the file, None if nothing."""
        if self.path is None:
            return None
        try:
            with self.path.open('rb') as file:
                found = file.read(_HEADER_BYTES)
        except FileNotFoundError:
            return 'missing'
        if found == self._header():
            return None
        if found[:8] != _MAGIC:
            return 'not a descriptor block'
        version = int.from_bytes(found[8:12], 'little')
        if version > _VERSION:
            return f'version {version}, this program knows {_VERSION}: update netvlad_ros'
        return 'header damaged'

    def write(self, row: int, keyframe_id: int, descriptor: npt.NDArray[Any]) -> int:
        """Store a descriptor (dim,) of the block's dtype in a row; returns its checksum."""
        data = descriptor.tobytes()
        checksum = row_checksum(keyframe_id, data)
        if self.path is None:
            self.rows[row] = descriptor
            return checksum
        assert self._fd is not None
        entry = _ENTRY.pack(keyframe_id, checksum, 0)
        _write_all(self._fd, data, self._data_offset + row * self._row_bytes)
        _write_all(self._fd, entry, _HEADER_BYTES + row * _ENTRY.size)
        return checksum

    def damaged_rows(
        self, first: int, ids: Sequence[int], checksums: Sequence[int]
    ) -> list[int]:
        """Return the rows from ``first`` whose stored bytes do not have the checksum expected."""
        if self.path is None:
            return []
        bad = []
        with self.path.open('rb') as file:
            pairs = zip(ids, checksums, strict=True)
            for row, (keyframe_id, checksum) in enumerate(pairs, first):
                entry = os.pread(file.fileno(), _ENTRY.size, _HEADER_BYTES + row * _ENTRY.size)
                offset = self._data_offset + row * self._row_bytes
                data = os.pread(file.fileno(), self._row_bytes, offset)
                # A cut file gives fewer bytes, which have another checksum.
                if (
                    row_checksum(keyframe_id, data) != checksum
                    or entry != _ENTRY.pack(keyframe_id, checksum, 0)
                ):
                    bad.append(row)
        return bad

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self._fd is not None:
            os.fdatasync(self._fd)

    def close(self, used_rows: Optional[int] = None) -> None:
        """Close the file for writing; after ``used_rows`` it is cut (None leaves it)."""
        if self._fd is None:
            return
        if used_rows is not None:
            self.rows = self.rows[:used_rows]
            os.ftruncate(self._fd, self._data_offset + used_rows * self._row_bytes)
        os.close(self._fd)
        self._fd = None


class DescriptorBlocks:
    """The descriptors of a map by row; rows are dense and in the order of insertion.

    :param folder: where ``block_000000.bin`` and so on lie; None keeps them in memory.
    :param mode: 'append' for the writer, 'read' for readers.
    """

    def __init__(
        self, folder: Optional[Path], dim: int, dtype: str, count: int, mode: str = 'append',
        rows: Optional[int] = None,
    ) -> None:
        self.folder, self.dim, self.dtype, self._mode = folder, dim, dtype, mode
        self.rows_per_block = rows or rows_per_block(dim, dtype)
        self.row_bytes = dim * np.dtype(dtype).itemsize
        self.blocks: list[Block] = []
        self._unsynced: set[int] = set()
        self._lock = threading.Lock()
        for number in range(-(-count // self.rows_per_block)):
            last = (number + 1) * self.rows_per_block >= count
            self.blocks.append(self._block(number, mode if last else 'read'))

    def _block(self, number: int, mode: str) -> Block:
        path = None if self.folder is None else self.folder / f'block_{number:06d}.bin'
        return Block(path, number, self.dim, self.dtype, self.rows_per_block, mode)

    def encode(self, descriptor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the descriptor as it is stored."""
        return np.ascontiguousarray(descriptor, dtype=self.dtype)

    def write(self, row: int, keyframe_id: int, stored: npt.NDArray[Any]) -> int:
        """Store an encoded descriptor in the next row; returns its checksum.

        :raises MapError: the disk is full or cannot be written.
        """
        number, offset = divmod(row, self.rows_per_block)
        try:
            self.prepare(row)
            self._unsynced.add(number)
            return self.blocks[number].write(offset, keyframe_id, stored)
        except OSError as error:
            raise MapError(_explain(error, self.folder)) from error

    def prepare(self, row: int) -> None:
        """Make the block that ``row`` will be in, if it is not there yet."""
        with self._lock:
            if row // self.rows_per_block == len(self.blocks):
                self.blocks.append(self._block(len(self.blocks), 'create'))
                self._sync_folder()

    def release(self) -> None:
        """Tell the system that mapped pages need not stay in this process's memory."""
        for block in self.blocks:
            if block.path is not None and len(block.rows):
                block.rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

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

    def missing_rows(self, count: int) -> list[int]:
        """Return those of the first ``count`` rows that lie beyond the end of their file."""
        missing: list[int] = []
        for block in self.blocks:
            start = block.number * self.rows_per_block
            needed = max(0, min(self.rows_per_block, count - start))
            missing += range(start + min(needed, block.stored), start + needed)
        return missing

    def damaged_rows(
        self, first: int, ids: Sequence[int], checksums: Sequence[int]
    ) -> list[int]:
        """Return the rows from ``first`` on whose stored bytes do not have their checksum."""
        bad, row, end = [], first, first + len(ids)
        while row < end:
            number, offset = divmod(row, self.rows_per_block)
            stop = min(end, (number + 1) * self.rows_per_block)
            part = slice(row - first, stop - first)
            found = self.blocks[number].damaged_rows(offset, ids[part], checksums[part])
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
        for block, low, high in zip(self.blocks, edges[:-1], edges[1:], strict=True):
            for start in range(low, high, step):
                part = order[start : min(high, start + step)]
                out[part] = np.take(block.rows, rows[part] - block.number * self.rows_per_block, 0)
        return out

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        for number in sorted(self._unsynced):
            # Discarded first: a row written meanwhile marks the block again.
            self._unsynced.discard(number)
            self.blocks[number].sync()
            if number not in self._unsynced and number < max(self._unsynced, default=-1):
                self.blocks[number].close()

    def _sync_folder(self) -> None:
        if self.folder is not None:
            sync_folder(self.folder)

    def bytes_on_disk(self) -> int:
        """Return the size of the block files."""
        paths = [block.path for block in self.blocks if block.path is not None]
        return sum(path.stat().st_blocks * 512 for path in paths)

    def close(self, count: int) -> None:
        """Close all files and cut the last one after row ``count``."""
        for block in self.blocks:
            used = None
            if self._mode == 'append':
                used = min(self.rows_per_block, max(0, count - block.number * self.rows_per_block))
            block.close(used if used != self.rows_per_block else None)
            if used == 0 and block.path is not None:
                block.path.unlink(missing_ok=True)


def replace_file(source: Path, target: Path) -> None:
    """Rename a file over another; after a power cut one of the two is there, complete."""
    with source.open('rb') as file:
        os.fsync(file.fileno())
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the creation or renaming of files in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):  # a nearly full disk takes a part, then fails
        written += os.pwrite(fd, data[written:], offset + written)


def _explain(error: OSError, folder: Optional[Path]) -> str:
    if error.errno == errno.ENOSPC:
        return f'disk is full, keyframe not stored in {folder}; what is stored is intact'
    return f'cannot write to {folder}: {error.strerror}; keyframe not stored'
