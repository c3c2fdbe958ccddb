# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The descriptors of a map with their index: on this machine's disk or in its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import itertools
import logging
import os
from pathlib import Path
from typing import Optional, Protocol

import faiss
import numpy as np

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes.adaptive_index import AdaptiveIndex
from netvlad_ros.keyframes.blocks import TAIL_ROWS, DescriptorBlocks
from netvlad_ros.keyframes.columns import Columns
from netvlad_ros.keyframes.records import Entry, Exclusion, Neighbour
from netvlad_ros.keyframes.store import Store
from netvlad_ros.types import Float32Array

_logger = logging.getLogger(__name__)


class Vectors(Protocol):
    """What the map needs of a place that keeps and searches descriptors."""

    damaged: list[int]

    def __len__(self) -> int: ...

    def __contains__(self, keyframe_id: object) -> bool: ...

    @property
    def next_id(self) -> int:
        """Return the id of the next keyframe."""

    def write(self, entry: Entry, vector: Float32Array) -> int:
        """Store a descriptor that no search sees yet; returns its checksum."""

    def publish(self, entry: Entry) -> None:
        """Let searches see the descriptor written last; its keyframe is committed."""

    def search(
        self, vector: Float32Array, k: int, exclude: Optional[Exclusion]
    ) -> list[Neighbour]:
        """Return up to k keyframes by falling similarity, ties by id."""

    def read(self, ids: Iterable[int]) -> Float32Array:
        """Return descriptors as (N, dim) float32."""

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take in keyframes that another process wrote."""

    def sync(self) -> None:
        """Wait until every descriptor would survive a power cut."""

    def maintain(self) -> None:
        """Do slow work ahead of the writer; runs in a thread of its own."""

    def improve(self) -> None:
        """Do work that may take minutes; runs in another thread of its own."""

    def stop_improving(self) -> None:
        """Make ``improve`` return soon."""

    def stats(self) -> dict[str, object]:
        """Return what diagnostics show."""

    def close(self) -> None:
        """Let go of files and threads."""


class LocalVectors:
    """Blocks of descriptors, columns of what an exclusion asks for, and a faiss index over both.

    :param folder: of the map; None keeps everything in memory.
    :param store: says which keyframes the map has; in a snapshot, if another process may write.
    :raises MapError: block files are missing, cut or of a newer version.
    """

    def __init__(
        self, folder: Optional[Path], store: Store, config: MapConfig, read_only: bool
    ) -> None:
        self._name = store.name
        self._columns = Columns()
        self._columns.load(
            store.core(),
            {number: session.uuid for number, session in store.sessions().items()},
            {number: camera.name for number, (_, camera) in store.cameras().items()},
        )
        count, meta = self._columns.count, store.meta()
        self._blocks = DescriptorBlocks(
            folder, int(meta['dim']), meta['dtype'], count, 'read' if read_only else 'append',
            int(meta['rows_per_block']),
        )
        self._hide_damaged(store)
        threads = config.threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(
            threads, 'map-search', initializer=_keep_apart, initargs=(itertools.count(), threads)
        )
        cache = None if folder is None else folder / 'index.faiss'
        self._index = AdaptiveIndex(self._blocks, self._pool, threads, config, cache, read_only)
        self._index.load(count)
        if not read_only:
            self.maintain()  # the first add finds its block ready

    def __len__(self) -> int:
        return self._columns.count

    def __contains__(self, keyframe_id: object) -> bool:
        return isinstance(keyframe_id, int) and self._columns.row(keyframe_id) is not None

    @property
    def next_id(self) -> int:
        """Return the id of the next keyframe."""
        count = self._columns.count
        return int(self._columns.ids[count - 1]) + 1 if count else 0

    def _hide_damaged(self, store: Store) -> None:
        """Leave keyframes without a sound descriptor out of the search, and say so.

        Only the last rows are read: a power cut under ``durability: normal`` can lose what was
        written in its last moments; older damage is for 'netvlad map verify' to find.
        """
        count = self._columns.count
        first = max(0, count - TAIL_ROWS)
        ids = self._columns.ids[first:count].tolist()
        checksums = store.checksums(ids[0], ids[-1]) if ids else []
        bad = self._blocks.damaged_rows(first, ids, checksums)
        self.damaged = self._columns.ids[bad].tolist()
        self._columns.hide(bad)
        if bad:
            _logger.warning(
                '%s: the descriptors of %d keyframes are damaged, they will not be found: %s',
                self._name, len(bad), self.damaged[:20],
            )

    def write(self, entry: Entry, vector: Float32Array) -> int:
        """Store a descriptor that no search sees yet; returns its checksum."""
        row = self._columns.count
        stored = self._blocks.encode(vector)
        checksum = self._blocks.write(row, entry.keyframe_id, stored)
        self._index.append(row, stored)
        return checksum

    def publish(self, entry: Entry) -> None:
        """Let searches see the descriptor written last; its keyframe is committed."""
        self._columns.append(entry)

    def search(
        self, vector: Float32Array, k: int, exclude: Optional[Exclusion]
    ) -> list[Neighbour]:
        """Return up to k keyframes by falling similarity, ties by id."""
        similarities, rows = self._index.search(vector, k, self._columns.select(exclude))
        ids = self._columns.ids[rows].tolist()
        return [Neighbour(*pair) for pair in zip(ids, similarities.tolist(), strict=True)]

    def read(self, ids: Iterable[int]) -> Float32Array:
        """Return descriptors as (N, dim) float32.

        :raises MapError: a keyframe is not in the map, or its descriptor is known to be damaged.
        """
        rows = []
        for keyframe_id in ids:
            row = self._columns.row(keyframe_id)
            if row is None or keyframe_id in self.damaged:
                raise MapError(f'{self._name} has no sound descriptor of keyframe {keyframe_id!r}')
            rows.append(row)
        return self._blocks.read(np.array(rows, np.int64))

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take in keyframes that another process wrote."""
        first = self._columns.count
        self._blocks.refresh(first + len(entries))
        for row, entry in enumerate(entries, first):
            number, offset = divmod(row, self._blocks.rows_per_block)
            self._index.append(row, self._blocks.blocks[number].rows[offset])
            self._columns.append(entry)

    def sync(self) -> None:
        """Wait until every descriptor would survive a power cut."""
        self._blocks.sync()

    def maintain(self) -> None:
        """Make the next block before an add needs it."""
        ahead = self._columns.count + self._blocks.rows_per_block // 2
        self._blocks.prepare(ahead)
        self._index.prepare(ahead)

    def improve(self) -> None:
        """Train the index or bring it up to date."""
        self._index.maintain(self._columns.count)

    def stop_improving(self) -> None:
        """Make ``improve`` return soon."""
        self._index.close()

    def stats(self) -> dict[str, object]:
        """Return what diagnostics show."""
        return {
            'descriptor_bytes': self._columns.count * self._blocks.row_bytes,
            'damaged': len(self.damaged),
            **self._index.stats(self._columns.count),
        }

    def close(self) -> None:
        """Let go of files and threads."""
        self._pool.shutdown()
        self._blocks.close(self._columns.count)


def _keep_apart(numbers: Iterator[int], threads: int) -> None:
    """Give each thread of a pool cores of its own, and faiss one thread in each.

    Linux wakes a thread on the core of the one that wakes it: after a pause two searching threads
    shared a core for 4 ms, while the other core was idle.
    """
    faiss.omp_set_num_threads(1)
    if hasattr(os, 'sched_setaffinity'):
        cores = sorted(os.sched_getaffinity(0))
        first = next(numbers) % min(threads, len(cores))
        os.sched_setaffinity(0, cores[first :: min(threads, len(cores))])
