# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a stored map row by row without an index: for the tools, and for maps that are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import sqlite3
from types import TracebackType
from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.opening import open_for_reading
from netvlad_ros.types import Float32Array

Row = dict[str, Any]


class MapReader:
    """A map opened for reading its rows; a context manager.

    It shows the map as it was when it was opened, also while another process adds keyframes.

    :raises MapError: the folder has no map, or its database cannot be opened at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = open_for_reading(folder)
        # Never ended: reads one by one would see a growing map, with fewer ids than descriptors.
        self.store.connection.execute('BEGIN')
        try:
            self.meta = self.store.meta()
            self.model_id, self.dim = self.meta['model_id'], int(self.meta['dim'])
            self.dtype = self.meta['dtype']
            self.rows_per_block = int(self.meta['rows_per_block'])
        except (KeyError, ValueError) as error:
            raise MapError(f'{folder}: the properties of the map are damaged ({error})') from error

    def __enter__(self) -> MapReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.store.connection.close()

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.store.rows(f'SELECT COUNT(*) FROM {table}')[0][0])  # noqa: S608

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table by key, as many as can be read."""
        names = schema.columns(table)
        try:
            for row in self.store.scan(table):
                yield dict(zip(names, row, strict=True))
        except sqlite3.Error as error:
            raise MapError(f'{self.folder}: table {table} is damaged ({error})') from error

    def blocks(self) -> DescriptorBlocks:
        """Open the descriptor blocks."""
        return DescriptorBlocks(
            self.folder, self.dim, self.dtype, self.count('keyframes'), 'read',
            self.rows_per_block,
        )

    def descriptors(self, batch: int = 256) -> Iterator[Float32Array]:
        """Yield all descriptors in batches of (N, dim) float32, in the order of the ids."""
        blocks, count = self.blocks(), self.count('keyframes')
        for start in range(0, count, batch):
            yield blocks.read(np.arange(start, min(count, start + batch)))

    def thumbnail(self, keyframe_id: int) -> Optional[bytes]:
        """Return the JPEG of a keyframe, None if it has none."""
        return self.store.thumbnail(keyframe_id)
