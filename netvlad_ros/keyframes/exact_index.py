# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Exact search over fixed blocks: an add never moves what is already there.

Every row is compared in float16, by a faiss scalar quantiser per block, which reads half the
memory of float32. Rounding moves a similarity by at most the length of what was rounded off, and
that is bounded: all rows that might be among the best are then ranked by their stored float32
descriptors, so that the answer is the one that comparing in float32 would give. Only where more
rows than a search reads lie within the bound, as of a robot that stood still for long, is it one
of these look-alikes.
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

_INLINE_BYTES = 1 << 20  # below this, handing work to threads costs more than it saves
_SPARE = 16  # rows beyond k that are looked at before it is known how many could be better
# How often to look at how many times more. A parked robot leaves more than can be read.
_WIDENINGS, _WIDEN = 2, 4
# Float16 has 11 significant bits, and below 2^-14 a fixed step.
_ROUNDING, _LEAST_STEP = 2.0**-11, 2.0**-24
_SUM_ERROR = 1e-5  # of a similarity, for the order of summation and rows a little longer than 1
Hits = tuple[Float32Array, npt.NDArray[np.int64]]


class ExactIndex:
    """Compares a query with every selected row.

    :param pool: of ``threads`` workers whose faiss runs on one thread each.

    ``row_bytes`` is the memory of a row, and what a search reads of it.
    """

    def __init__(self, blocks: DescriptorBlocks, pool: Executor, threads: int) -> None:
        self._blocks, self._pool, self._threads = blocks, pool, threads
        self.row_bytes = 2 * blocks.dim
        self._rows_at_once = blocks.rows_per_block * blocks.row_bytes // self.row_bytes
        self._codes: list[Any] = []  # of each block, None where nobody searches
        self._lock = threading.Lock()

    def load(self, count: int, first: int = 0) -> None:
        """Take in the rows that a map already has; none before ``first`` will be searched."""
        unused = first // self._rows_at_once
        self._codes = [None] * unused
        size = self._blocks.rows_per_block
        for number, block in enumerate(self._blocks.blocks):
            start = number * size
            if start >= unused * self._rows_at_once:
                self._put(start, block.rows[: max(0, min(size, count - start))])
                block.release()

    def append(self, row: int, stored: npt.NDArray[Any]) -> None:
        """Take in an encoded descriptor that was just written to the blocks."""
        self._put(row, stored[None])

    def drop(self, row: int) -> None:
        """Free what only rows before ``row`` need."""
        for number in range(min(len(self._codes), row // self._rows_at_once)):
            self._codes[number] = None

    def prepare(self, row: int) -> None:
        """Allocate memory for the codes that ``row`` will be in, ahead of time."""
        number = row // self._rows_at_once
        if number != len(self._codes):
            return
        codes = faiss.IndexScalarQuantizer(
            self._blocks.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        codes.codes.resize(self._rows_at_once * codes.code_size)
        with self._lock:  # taken this late, no add waits for the memory
            if number == len(self._codes):
                self._codes.append(codes)

    def _put(self, row: int, rows: npt.NDArray[Any]) -> None:
        self.prepare(row)
        number, offset = divmod(row, self._rows_at_once)
        codes = self._codes[number]
        flat = faiss.rev_swig_ptr(codes.codes.data(), codes.codes.size())
        half = np.ascontiguousarray(rows, np.float16)
        flat[offset * codes.code_size :][: half.nbytes] = half.view(np.uint8).reshape(-1)
        codes.ntotal = offset + len(rows)

    def search(self, query: Float32Array, k: int, selection: Selection) -> Hits:
        """Return similarities (m,) and rows (m,) of the m <= k most similar selected rows."""
        if self._blocks.dtype == 'float16':
            return best_of(self._compare(query, k, selection), k)
        error = _ROUNDING + 0.5 * _LEAST_STEP * self._blocks.dim**0.5 + _SUM_ERROR
        for widening in range(_WIDENINGS + 1):
            wanted = (k + _SPARE) * _WIDEN**widening
            similarities, rows = best_of(self._compare(query, wanted, selection), wanted)
            # What is k-th here reaches its value minus the error; what is more than the error
            # below that cannot.
            least = similarities[k - 1] - 2.0 * error if len(rows) > k else -np.inf
            if len(rows) < wanted or similarities[-1] < least:
                break
        rows = rows[similarities >= least]
        return best_of(self._exactly(query, rows), k)

    def _exactly(self, query: Float32Array, rows: npt.NDArray[np.int64]) -> list[Hits]:
        """Compare rows by their stored descriptors, in parts that stay small in memory."""
        step = max(1, _INLINE_BYTES // self._blocks.row_bytes)
        parts = (rows[start : start + step] for start in range(0, len(rows), step))
        return [(self._blocks.read(part) @ query, part) for part in parts]

    def _compare(self, query: Float32Array, k: int, selection: Selection) -> list[Hits]:
        """Return the k most similar codes of each block."""
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
        helpers = min(self._threads, len(parts)) if rows * query.nbytes > _INLINE_BYTES else 0
        jobs = [self._pool.submit(work) for _ in range(helpers)]
        with _one_faiss_thread():
            hits = work()
        for job in jobs:
            if not job.cancel():
                hits += job.result()
        return hits

    def _parts(self, ranges: list[Range]) -> list[tuple[int, int, int]]:
        size, parts = self._rows_at_once, []
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
        start = number * self._rows_at_once
        chosen: Any = faiss.IDSelectorRange(low, high, True)  # type: ignore[call-arg]
        count = high - low
        if mask is not None:
            inside = np.zeros(high, bool)
            inside[low:] = mask[start + low : start + high]
            count = int(np.count_nonzero(inside))
            bits: Any = np.packbits(inside, bitorder='little')
            chosen = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg]
        if (codes := self._codes[number]) is None:
            rows = start + (np.arange(low, high) if mask is None else np.flatnonzero(inside))
            return self._blocks.read(rows) @ query, rows
        if count == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        params = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        similarities, found = codes.search(query[None], min(k, count), params=params)
        return similarities[0], found[0] + start

    def size_bytes(self) -> int:
        """Return the memory that searching takes."""
        return sum(codes.codes.size() for codes in self._codes if codes is not None)


@contextmanager
def _one_faiss_thread() -> Iterator[None]:
    # OpenMP keeps this number for each thread; a team costs more than it gains in one block.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def best_of(hits: list[Hits], k: int) -> Hits:
    """Return the k best of several results, the more similar first, ties by row."""
    if not hits:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    similarities = np.concatenate([found for found, _ in hits])
    rows = np.concatenate([rows for _, rows in hits])
    order = np.lexsort((rows, -similarities))[:k]
    return similarities[order], rows[order]
