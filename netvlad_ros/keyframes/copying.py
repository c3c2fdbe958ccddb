# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a map that is open, be it in memory or on disk, to a folder of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional

from netvlad_ros.keyframes.reader import MapReader, Row
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.vectors import Vectors
from netvlad_ros.keyframes.writer import MapWriter, Selector
from netvlad_ros.types import Float32Array

_logger = logging.getLogger(__name__)


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

    Keyframes whose descriptors are known to be damaged are left out; the log says how many.

    :returns: number of keyframes copied.
    :raises MapError: the folder exists already or cannot be written.
    """
    damaged = set(vectors.damaged)

    def descriptor(row: Row) -> Optional[Float32Array]:
        if row['id'] in damaged:
            return None
        vector: Float32Array = vectors.read([row['id']])[0]
        return vector

    reader = _OpenMapReader(store)
    with MapWriter(folder, reader.model_id, reader.dim, reader.dtype) as writer:
        writer.copy(reader, Selector(descriptor=descriptor))
        writer.note('copy', {'from': store.name, 'left_out': len(damaged)})
        copied = writer.keyframes
    if damaged:
        _logger.warning(
            '%s has %d keyframes; %d of %s with damaged descriptors were left out: %s',
            folder, copied, len(damaged), store.name, sorted(damaged)[:20],
        )
    return copied
