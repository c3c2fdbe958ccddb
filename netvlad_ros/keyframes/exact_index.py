# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Exact search over fixed blocks: an add never moves what is already there.

Rows of a map on disk are searched in a copy in memory: reading them through the mapped file took
1.4 times as long (20,000 x 4096 float32, ext4). float32 rows are one BLAS product per block, on
the threads of NumPy's BLAS: after a pause that took 0.7 times as long as faiss's flat product on
threads of our own, which first had to wake up. float16 rows are decoded by a faiss scalar
quantiser per block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
import threading
from typing import Any, Optional

import faiss
import numpy as np
import numpy.typing as npt

from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.columns import Range, Selection
from netvlad_ros.types import Float32Array

_INLINE_BYTES = 2 << 20  # below this, handing work to threads costs more than it saves
Hits = tuple[Float32Array, npt.NDArray[np.int64]]


class ExactIndex:
    """Compares a query with every selected row.

    :param pool: of ``threads`` workers whose faiss runs on one thread each.
    """

    def __init__(self, blocks: DescriptorBlocks, pool: Executor, threads: int) -> None:
        self._blocks, self._pool, self._threads = blocks, pool, threads
        self._half = blocks.dtype == 'float16'
        # Rows in memory are searched where they lie; those in files through a copy.
        self._copies_rows = self._half or blocks.folder is not None
        self._copies: list[Any] = []  # of each block, None where nobody searches
        self._lock = threading.Lock()

    def load(self, count: int, first: int = 0) -> None:
        """Take in the rows that a map already has; none before ``first`` will be searched."""
        if not self._copies_rows:
            return
        size = self._blocks.rows_per_block
        self._copies = [None] * (first // size)
        for number, block in enumerate(self._blocks.blocks):
            if (number + 1) * size > first:
                self._put(number, 0, block.rows[: max(0, min(size, count - number * size))])
                block.release()

    def append(self, row: int, stored: npt.NDArray[Any]) -> None:
        """Take in an encoded descriptor that was just written to the blocks."""
        if self._copies_rows:
            number, offset = divmod(row, self._blocks.rows_per_block)
            self._put(number, offset, stored[None])

    def drop(self, row: int) -> None:
        """Free what only rows before ``row`` need."""
        for number in range(min(len(self._copies), row // self._blocks.rows_per_block)):
            self._copies[number] = None

    def prepare(self, row: int) -> None:
        """Allocate memory for the block that ``row`` will be in, ahead of time."""
        number = row // self._blocks.rows_per_block
        if not self._copies_rows or number != len(self._copies):
            return
        copy = self._new_copy()  # outside the lock: no add waits for it
        with self._lock:
            if number == len(self._copies):
                self._copies.append(copy)

    def _new_copy(self) -> Any:
        rows, dim = self._blocks.rows_per_block, self._blocks.dim
        if not self._half:
            copy = np.empty((rows, dim), np.float32)
            # The first touch of a huge page takes 3 ms: not in an add, and not with the
            # interpreter locked, as NumPy would.
            with open('/dev/zero', 'rb', buffering=0) as zeros:  # noqa: PTH123
                zeros.readinto(copy.data)
            return copy
        codes = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        codes.codes.resize(rows * codes.code_size)
        return codes

    def _put(self, number: int, offset: int, rows: npt.NDArray[Any]) -> None:
        self.prepare(number * self._blocks.rows_per_block)
        copy = self._copies[number]
        if not self._half:
            copy[offset : offset + len(rows)] = rows
            return
        flat = faiss.rev_swig_ptr(copy.codes.data(), copy.codes.size())
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(-1)
        flat[offset * copy.code_size :][: data.size] = data
        copy.ntotal = offset + len(rows)

    def search(self, query: Float32Array, k: int, selection: Selection) -> Hits:
        """Return similarities (m,) and rows (m,) of the m <= k most similar selected rows."""
        parts = deque(self._parts(selection.ranges))
        rows = sum(high - low for _, low, high in parts)

        def work() -> list[Hits]:
            hits: list[Hits] = []
            while True:
                try:
                    part = parts.popleft()
                except IndexError:
                    return hits
                hits.append(self._scan(query, k, part, selection.mask))

        # The calling thread works too: a search never waits for a thread to wake up.
        shared = self._half and rows * query.nbytes > _INLINE_BYTES
        helpers = min(self._threads, len(parts)) - 1 if shared else 0
        jobs = [self._pool.submit(work) for _ in range(helpers)]
        with _one_faiss_thread():
            hits = work()
        for job in jobs:
            if not job.cancel():
                hits += job.result()
        return best_of(hits, k)

    def _parts(self, ranges: list[Range]) -> list[tuple[int, int, int]]:
        size, parts = self._blocks.rows_per_block, []
        for low, high in ranges:
            for number in range(low // size, -(-high // size)):
                start = number * size
                parts.append((number, max(low - start, 0), min(high - start, size)))
        return parts

    def _scan(
        self, query: Float32Array, k: int, part: tuple[int, int, int],
        mask: Optional[npt.NDArray[np.bool_]],
    ) -> Hits:
        number, low, high = part
        start = number * self._blocks.rows_per_block
        if mask is not None and not mask[start + low : start + high].all():
            return self._scan_masked(query, k, part, mask)
        codes = self._copies[number] if self._half else None
        if codes is not None:
            params = faiss.SearchParameters(sel=faiss.IDSelectorRange(low, high, True))  # type: ignore[call-arg]
            found, rows = codes.search(query[None], min(k, high - low), params=params)
        else:
            vectors = np.asarray(self._rows(number)[low:high], np.float32)
            similarities, rows = _nearest(query, vectors, k)
            return similarities, rows + low + start
        return found[0], rows[0] + start

    def _scan_masked(
        self, query: Float32Array, k: int, part: tuple[int, int, int],
        mask: npt.NDArray[np.bool_],
    ) -> Hits:
        number, low, high = part
        start = number * self._blocks.rows_per_block
        chosen = low + np.flatnonzero(mask[start + low : start + high])
        if len(chosen) == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        vectors = np.asarray(self._rows(number)[chosen], np.float32)
        similarities, rows = _nearest(query, vectors, k)
        return similarities, chosen[rows] + start

    def _rows(self, number: int) -> npt.NDArray[Any]:
        copy = self._copies[number] if self._copies_rows and not self._half else None
        return self._blocks.blocks[number].rows if copy is None else copy

    def size_bytes(self, count: int) -> int:
        """Return the memory that searching takes: copies, or the rows where they lie."""
        if not self._copies_rows:
            return count * self._blocks.row_bytes
        held = sum(copy is not None for copy in self._copies)
        return held * self._blocks.rows_per_block * self._blocks.row_bytes


@contextmanager
def _one_faiss_thread() -> Iterator[None]:
    # OpenMP keeps this number for each thread; a team costs more than it gains in one block.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _nearest(query: Float32Array, vectors: Float32Array, k: int) -> Hits:
    """Return the k most similar rows, and those that tie with the last of them."""
    count = len(vectors)
    similarities = vectors @ query
    if count <= k:
        return similarities, np.arange(count)
    least = np.partition(similarities, count - k)[count - k]
    rows = np.flatnonzero(similarities >= least)
    return similarities[rows], rows


def best_of(hits: list[Hits], k: int) -> Hits:
    """Return the k best of several results, the more similar first, ties by row."""
    if not hits:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    similarities = np.concatenate([found for found, _ in hits])
    rows = np.concatenate([rows for _, rows in hits])
    order = np.lexsort((rows, -similarities))[:k]
    return similarities[order], rows[order]
