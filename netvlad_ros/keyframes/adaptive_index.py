# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Chooses between exact and clustered search as the map grows, and swaps them while it runs."""

from __future__ import annotations

from concurrent.futures import Executor
import logging
from pathlib import Path
import threading
import time
from typing import Any, Optional

import numpy.typing as npt

from netvlad_ros.config import MapConfig
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.clustered_index import ClusteredIndex, code_bytes
from netvlad_ros.keyframes.columns import Range, Selection
from netvlad_ros.keyframes.exact_index import ExactIndex, Hits, best_of
from netvlad_ros.types import Float32Array

_logger = logging.getLogger(__name__)
_MIN_ROWS = 10_000  # what faiss wants to see for 256 product codes per part
_TAIL_ROWS = 4096  # newer rows than this many are searched exactly, the others by cluster
# An exclusion that leaves less than this is searched exactly: it may have emptied the clusters.
_SMALL_BYTES = 32 << 20
_TYPICAL_BYTES_PER_S = 5e9  # until this machine's own searches say better
_MEASURE_BYTES = 8 << 20
_MB = 1e6


class AdaptiveIndex:
    """Exact over all rows, or clustered over the old ones and exact over the newest.

    :param cache: file that a trained index is kept in; None for a map in memory.
    """

    def __init__(
        self, blocks: DescriptorBlocks, pool: Executor, threads: int, config: MapConfig,
        cache: Optional[Path], read_only: bool,
    ) -> None:
        self._blocks, self._config = blocks, config
        self._cache, self._read_only = cache, read_only
        self._exact = ExactIndex(blocks, pool, threads)
        self._clustered: Optional[ClusteredIndex] = None
        self._saved_rows = 0
        self._bytes_per_s = _TYPICAL_BYTES_PER_S
        self._closing = threading.Event()
        self._training = threading.Lock()

    def load(self, count: int) -> None:
        """Take in the rows that a map already has."""
        if self._cache is not None and self._config.index != 'exact':
            self._clustered = ClusteredIndex.load(self._blocks, self._cache, count)
        if self._clustered is not None:
            self._saved_rows = self._clustered.rows
        self._exact.load(count, self._saved_rows)

    def append(self, row: int, stored: npt.NDArray[Any]) -> None:
        """Take in an encoded descriptor that was just written to the blocks."""
        self._exact.append(row, stored)

    def prepare(self, row: int) -> None:
        """Allocate ahead of time what ``row`` will need."""
        self._exact.prepare(row)

    def search(self, query: Float32Array, k: int, selection: Selection) -> Hits:
        """Return similarities (m,) and rows (m,) of the m <= k most similar selected rows."""
        clustered = self._clustered
        if clustered is None:
            return self._timed_exact(query, k, selection)
        old, new = _split(selection.ranges, clustered.rows)
        if sum(high - low for low, high in old) * self._blocks.row_bytes <= _SMALL_BYTES:
            return self._exact.search(query, k, selection)
        hits = [
            self._exact.search(query, k, Selection(new, selection.mask)),
            clustered.search(query, k, Selection(old, selection.mask)),
        ]
        return best_of(hits, k)

    def _timed_exact(self, query: Float32Array, k: int, selection: Selection) -> Hits:
        size = self._exact.row_bytes * sum(high - low for low, high in selection.ranges)
        start = time.perf_counter()
        hits = self._exact.search(query, k, selection)
        if size > _MEASURE_BYTES:
            speed = size / (time.perf_counter() - start)
            self._bytes_per_s += 0.1 * (speed - self._bytes_per_s)
        return hits

    def choose(self, count: int) -> tuple[str, str]:
        """Return the kind of index for so many rows, and why."""
        if self._config.index == 'exact':
            return 'exact', 'asked for'
        if count < _MIN_ROWS:
            return 'exact', f'fewer than {_MIN_ROWS} keyframes'
        if self._config.index != 'auto':
            return self._config.index, 'asked for'
        size = count * self._exact.row_bytes
        size_mb, budget_mb = size / _MB, self._config.memory_budget_mb
        expected_ms, budget_ms = 1e3 * size / self._bytes_per_s, self._config.latency_budget_ms
        numbers = (
            f'exact: {size_mb:.0f} of {budget_mb:.0f} MB, {expected_ms:.1f} of {budget_ms:.1f} ms'
        )
        if size_mb <= budget_mb and expected_ms <= budget_ms:
            return 'exact', numbers
        int8_mb = count * code_bytes('ivf_int8', self._blocks.dim) / _MB
        kind = 'ivf_int8' if int8_mb <= 0.5 * budget_mb else 'ivf_pq'
        return kind, f'{numbers}; int8 codes: {int8_mb:.0f} MB'

    def maintain(self, count: int) -> None:
        """Train or extend the clustered index; takes long and is called beside the map."""
        with self._training:
            self._maintain(count)

    def _maintain(self, count: int) -> None:
        kind, reason = self.choose(count)
        clustered = self._clustered
        if kind == 'exact':
            return
        if (
            clustered is None or clustered.kind != kind
            or count > 2 * clustered.trained_rows
        ):
            _logger.info('training %s over %d keyframes (%s)', kind, count, reason)
            clustered = ClusteredIndex.train(self._blocks, kind, count, self._closing.is_set)
            if clustered is None:
                return
            self._clustered = clustered
        elif count - clustered.rows > _TAIL_ROWS:
            clustered.extend(count)
        if clustered.rows > self._saved_rows and not self._closing.is_set():
            self._exact.drop(clustered.rows)
            self._save(clustered)

    def _save(self, clustered: ClusteredIndex) -> None:
        if self._cache is not None and not self._read_only:
            clustered.save(self._cache)
        self._saved_rows = clustered.rows

    def stats(self, count: int) -> dict[str, object]:
        """Return which index is in use, why, and what it takes."""
        kind, reason = self.choose(count)
        clustered = self._clustered
        in_use = 'exact' if clustered is None else clustered.kind
        if in_use != kind:
            reason = f'{kind} is being trained ({reason})'
        return {
            'index': in_use,
            'index_reason': reason,
            'index_bytes': self._exact.size_bytes()
            + (0 if clustered is None else clustered.size_bytes()),
            'index_rows_clustered': 0 if clustered is None else clustered.rows,
        }

    def close(self) -> None:
        """Stop a training in progress."""
        self._closing.set()


def _split(ranges: list[Range], row: int) -> tuple[list[Range], list[Range]]:
    old = [(low, min(high, row)) for low, high in ranges if low < row]
    new = [(max(low, row), high) for low, high in ranges if high > row]
    return old, new
