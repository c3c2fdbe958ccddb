# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what can still be read of a damaged map: the other rows beside each broken page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
import sqlite3
from typing import Any

import numpy as np

from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.reader import MapReader, Row
from netvlad_ros.types import Float32Array

Key = tuple[Any, ...]
# The table of keyframes in a block file, see ``block_file``.
_ENTRIES = np.dtype([('keyframe_id', '<u8'), ('checksum', '<u4'), ('zero', '<u4')])
_ENTRIES_OFFSET = 64
# Indexes that name every key of their table from pages of their own.
_KEY_INDEXES = {'keyframes': 'keyframes_core', 'closures': 'closures_by_match'}


class DamagedReader(MapReader):
    """A map some of whose pages, rows or files may be lost; a context manager.

    :raises MapError: the folder has no map, or its database cannot be opened at all.
    """

    def __enter__(self) -> DamagedReader:
        return self

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the sound rows of a table by key."""
        for _, found in self.records(table):
            if not isinstance(found, str):
                yield found

    def records(self, table: str) -> Iterator[tuple[Key, Row | str]]:
        """Yield each key of a table by rising key, with the row or what is wrong with it.

        The table is read in one go up to the first row that cannot be read, and row by row after
        it. Keys that are on a lost page only, and in no index and no block file, are not found. Of
        closures, SQLite reaches the one that follows a lost page only through that page.
        """
        keys, _ = schema.TABLES[table]
        columns = ', '.join(schema.columns(table))
        names, count = schema.columns(table), len(keys)
        select = f'SELECT {columns}, crc IS row_crc({columns}) FROM {table}'  # noqa: S608
        last: Key = ()

        def record(values: tuple[Any, ...]) -> tuple[Key, Row | str]:
            *row, is_sound = values
            found = dict(zip(names, row, strict=True)) if is_sound else 'checksum differs'
            return tuple(row[:count]), found

        try:
            for values in self.store.connection.execute(f'{select} ORDER BY {", ".join(keys)}'):
                key, found = record(values)
                # A broken page may lead to one that was read already.
                if _order(key) > _order(last):
                    yield key, found
                    last = key
            return
        except sqlite3.Error:
            pass
        # Without a limit SQLite looks for a second row, maybe on a broken page.
        where = ' AND '.join(f'{key} = ?' for key in keys) + ' LIMIT 1'
        for key in sorted(self._keys(table), key=_order):
            if _order(key) > _order(last):
                try:
                    for values in self.store.connection.execute(f'{select} WHERE {where}', key):
                        yield record(values)
                except sqlite3.Error as error:
                    yield key, f'cannot be read ({error})'

    def _keys(self, table: str) -> set[Key]:
        """Return the keys of a table, from both of its ends and from all else that names them."""
        keys = ', '.join(schema.TABLES[table][0])
        backwards = keys.replace(',', ' DESC,') + ' DESC'
        statements = [
            f'SELECT {keys} FROM {table} NOT INDEXED ORDER BY {keys}',  # noqa: S608
            f'SELECT {keys} FROM {table} NOT INDEXED ORDER BY {backwards}',  # noqa: S608
        ]
        if index := _KEY_INDEXES.get(table):
            statements.append(f'SELECT {keys} FROM {table} INDEXED BY {index}')  # noqa: S608
        found: set[Key] = set()
        for statement in statements:
            with suppress(sqlite3.Error):  # what came before the error was taken
                found.update(self.store.connection.execute(statement))
        if table == 'keyframes':
            found.update((keyframe_id,) for keyframe_id in self.descriptor_rows)
        elif table == 'thumbnails':
            found |= self._keys('keyframes')
        return found

    @cached_property
    def descriptor_rows(self) -> dict[int, int]:
        """Row of the descriptor by keyframe id, as the block files name them."""
        rows: dict[int, int] = {}
        for path in sorted(self.folder.glob('block_*.bin')):
            first = int(path.stem.removeprefix('block_')) * self.rows_per_block
            with path.open('rb') as file:
                file.seek(_ENTRIES_OFFSET)
                data = file.read(self.rows_per_block * _ENTRIES.itemsize)
            entries = np.frombuffer(data, _ENTRIES, len(data) // _ENTRIES.itemsize)
            written = np.flatnonzero(entries['checksum'])
            ids = entries['keyframe_id'][written].tolist()
            rows.update(zip(ids, (first + written).tolist(), strict=True))
        return rows

    @cached_property
    def _blocks(self) -> DescriptorBlocks:
        count = max(self.descriptor_rows.values(), default=-1) + 1
        return DescriptorBlocks(
            self.folder, self.dim, self.dtype, count, 'read', self.rows_per_block,
            is_complete=False,
        )

    def descriptor(self, keyframe_id: int) -> Float32Array:
        """Return the (dim,) descriptor of a keyframe that ``verify`` found sound."""
        vector: Float32Array = self._blocks.read(np.array([self.descriptor_rows[keyframe_id]]))[0]
        return vector


def _order(key: Key) -> Key:
    """Return what sorts keys, also one whose type a flipped bit changed."""
    return tuple((type(part).__name__, part) for part in key)
