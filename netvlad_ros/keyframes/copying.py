# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a map that is open, be it in memory or on disk, to a folder of its own."""

from __future__ import annotations

from pathlib import Path

from netvlad_ros.keyframes.reader import MapReader, Row
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.vectors import Vectors
from netvlad_ros.keyframes.writer import MapWriter, Selector
from netvlad_ros.types import Float32Array


class _OpenMapReader(MapReader):
    """The rows of a map through the connection it is open with."""

    def __init__(self, store: Store) -> None:
        self.folder = Path(store.name)
        self.store = store
        self.meta = store.meta()
        self.model_id, self.dim = self.meta['model_id'], int(self.meta['dim'])
        self.dtype = self.meta['dtype']


def write_copy(store: Store, vectors: Vectors, folder: Path) -> int:
    """Copy all rows and descriptors to a new map with the same ids.

    :returns: number of keyframes copied.
    :raises MapError: the folder exists already or cannot be written.
    """

    def descriptor(row: Row) -> Float32Array:
        vector: Float32Array = vectors.read([row['id']])[0]
        return vector

    reader = _OpenMapReader(store)
    with MapWriter(folder, reader.model_id, reader.dim, reader.dtype) as writer:
        writer.copy(reader, Selector(descriptor=descriptor))
        writer.note('copy', {'from': store.name})
        return writer.keyframes
