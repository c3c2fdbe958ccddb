# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The format of a file of descriptors: a fixed number of rows, appended, checksummed.

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
import os
from pathlib import Path
import struct
from typing import Any, Optional
import zlib

import numpy as np
import numpy.typing as npt

_MAGIC = b'NVLADBLK'
_VERSION = 1
_HEADER = struct.Struct('<8sIIIIQ')
_ENTRY = struct.Struct('<QII')
_HEADER_BYTES = 64
_PAGE = 4096


def row_checksum(keyframe_id: int, data: bytes) -> int:
    """Return the CRC-32 of a keyframe id and the bytes of its descriptor."""
    return zlib.crc32(data, zlib.crc32(keyframe_id.to_bytes(8, 'little')))


class BlockFile:
    """The format of one block file; holds no open file.

    :param number: of the block in its map.
    :param capacity: rows of the block.
    """

    def __init__(self, path: Path, number: int, dim: int, dtype: str, capacity: int) -> None:
        self.path, self.number, self.dim, self.capacity = path, number, dim, capacity
        self.dtype = np.dtype(dtype)
        self.row_bytes = dim * self.dtype.itemsize
        self.data_offset = -(-(_HEADER_BYTES + capacity * _ENTRY.size) // _PAGE) * _PAGE
        self.full_bytes = self.data_offset + capacity * self.row_bytes

    def _header(self) -> bytes:
        head = _HEADER.pack(
            _MAGIC, _VERSION, self.dim, self.dtype.itemsize, self.capacity, self.number
        )
        return (head + struct.pack('<I', zlib.crc32(head))).ljust(_HEADER_BYTES, b'\0')

    def create(self) -> int:
        """Make the file, sparse at its full length and not yet synced; returns its descriptor."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(fd, self._header(), 0)
            os.ftruncate(fd, self.full_bytes)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def map(self) -> npt.NDArray[Any]:
        """Return the rows as (n, dim); beyond the end of a cut file would be a bus error."""
        rows = self.rows_in_file()
        if rows == 0:
            return np.zeros((0, self.dim), self.dtype)
        return np.memmap(
            self.path, self.dtype, mode='r', offset=self.data_offset, shape=(rows, self.dim)
        )

    def rows_in_file(self) -> int:
        """Return for how many rows the file is long enough."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        return max(0, min(self.capacity, (size - self.data_offset) // self.row_bytes))

    def check_header(self) -> Optional[str]:
        """Return what is wrong with the header, None if nothing."""
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

    def write(self, fd: int, row: int, keyframe_id: int, data: bytes) -> int:
        """Store the bytes of a descriptor in a row; returns its checksum."""
        checksum = row_checksum(keyframe_id, data)
        entry = _ENTRY.pack(keyframe_id, checksum, 0)
        _write_all(fd, data, self.data_offset + row * self.row_bytes)
        _write_all(fd, entry, _HEADER_BYTES + row * _ENTRY.size)
        return checksum

    def damaged_rows(
        self, first: int, ids: Sequence[int], checksums: Sequence[int]
    ) -> list[int]:
        """Return the rows from ``first`` whose stored bytes do not have the checksum expected."""
        bad = []
        with self.path.open('rb') as file:
            pairs = zip(ids, checksums, strict=True)
            for row, (keyframe_id, checksum) in enumerate(pairs, first):
                entry = os.pread(file.fileno(), _ENTRY.size, _HEADER_BYTES + row * _ENTRY.size)
                offset = self.data_offset + row * self.row_bytes
                data = os.pread(file.fileno(), self.row_bytes, offset)
                # A cut file gives fewer bytes, which have another checksum.
                intact = row_checksum(keyframe_id, data) == checksum
                if not intact or entry != _ENTRY.pack(keyframe_id, checksum, 0):
                    bad.append(row)
        return bad


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


def explain_sync(error: OSError, folder: Optional[Path]) -> str:
    """Return what a failed sync of a file of a map means."""
    return (
        f'{folder} cannot be written to the disk ({error.strerror}): a power cut would lose what '
        f'was stored last, check the disk'
    )


def _write_all(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):  # a nearly full disk takes a part, then fails
        written += os.pwrite(fd, data[written:], offset + written)
