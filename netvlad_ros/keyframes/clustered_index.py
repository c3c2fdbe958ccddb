# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Approximate search of large maps: faiss IVF over compressed codes, best hits ranked exactly.

An index covers the first ``rows`` rows of the blocks. It is trained beside the running map, tuned
on the map's own keyframes until it finds what the exact search finds, and kept in a cache file.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
import math
from pathlib import Path
import threading
from typing import Any, Optional
import zlib

import faiss
import numpy as np
import numpy.typing as npt

from netvlad_ros.keyframes.block_file import replace_file
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.columns import Range, Selection
from netvlad_ros.keyframes.exact_index import Hits, best_of
from netvlad_ros.types import Float32Array

_logger = logging.getLogger(__name__)
_SAMPLES_PER_CLUSTER = 50
_SAMPLE_BYTES = 256 << 20
_ITERATIONS = 8
_SEED = 1
_TUNING_QUERIES = 256
_TARGET_RECALL = 0.995
_ADD_ROWS = 8192
# Candidates ranked exactly: 8-bit codes are nearly exact, product codes only sort roughly.
_CANDIDATES = {'ivf_int8': 64, 'ivf_pq': 512}
_PQ_DIMS = 8  # dimensions per byte of product code


def code_bytes(kind: str, dim: int) -> int:
    """Return the memory of one compressed descriptor with its id."""
    return (dim if kind == 'ivf_int8' else -(-dim // _PQ_DIMS)) + 8


class ClusteredIndex:
    """A trained index over rows [0, rows)."""

    def __init__(
        self, blocks: DescriptorBlocks, kind: str, index: Any, nprobe: int, trained_rows: int
    ) -> None:
        self._blocks, self.kind, self._index = blocks, kind, index
        self.nprobe, self.trained_rows = nprobe, trained_rows
        self.rows = int(index.ntotal)
        self._lock = threading.Lock()  # faiss: no search while codes are added

    @classmethod
    def train(
        cls, blocks: DescriptorBlocks, kind: str, count: int, is_cancelled: Callable[[], bool],
    ) -> Optional[ClusteredIndex]:
        """Build an index over the first ``count`` rows; None if cancelled meanwhile."""
        dim = blocks.dim
        clusters = 1 << round(math.log2(2.0 * math.sqrt(count)))
        samples = min(
            count, clusters * _SAMPLES_PER_CLUSTER, max(clusters, _SAMPLE_BYTES // (4 * dim))
        )
        rng = np.random.default_rng(_SEED)
        vectors = blocks.read(np.sort(rng.choice(count, samples, replace=False)))
        kmeans: Any = faiss.Kmeans(
            dim, clusters, niter=_ITERATIONS, seed=_SEED, spherical=True,
            min_points_per_centroid=1, max_points_per_centroid=_SAMPLES_PER_CLUSTER,
        )
        kmeans.train(vectors)
        index = _empty(kind, dim, kmeans.centroids)
        index.train(vectors)
        del vectors
        built = cls(blocks, kind, index, 1, count)
        while built.rows < count and not is_cancelled():
            built.extend(min(count, built.rows + _ADD_ROWS))
        blocks.release()
        if is_cancelled():
            return None
        built._tune(rng)
        blocks.release()
        return built

    def extend(self, end: int) -> None:
        """Take in the rows up to ``end``."""
        while self.rows < end:
            stop = min(end, self.rows + 64 if self.nprobe > 1 else end)
            vectors = self._blocks.read(np.arange(self.rows, stop))
            with self._lock:
                self._index.add(vectors)
                self.rows = stop

    def _tune(self, rng: np.random.Generator) -> None:
        """Probe more clusters until the best other keyframe of a sample is nearly always found."""
        chosen = rng.choice(self.rows, min(_TUNING_QUERIES, self.rows), replace=False)
        queries = self._blocks.read(chosen)
        truth = self._best_other(queries, chosen)
        clusters = int(self._index.nlist)
        for self.nprobe in (2**i for i in range(2, clusters.bit_length())):
            found = 0
            for query, row, best in zip(queries, chosen.tolist(), truth.tolist(), strict=True):
                others = Selection([(0, row), (row + 1, self.rows)])
                similarities, _ = self.search(query, 1, others)
                found += bool(len(similarities)) and similarities[0] >= best - 1e-5
            if found >= _TARGET_RECALL * len(chosen):
                break
        _logger.info(
            '%s index: %d rows, %d clusters, %d probed, recall@1 %.4f on %d of its keyframes',
            self.kind, self.rows, clusters, self.nprobe, found / len(chosen), len(chosen),
        )

    def _best_other(
        self, queries: Float32Array, own: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        best = np.full(len(queries), -2.0, np.float32)
        for start in range(0, self.rows, _ADD_ROWS):
            rows = np.arange(start, min(self.rows, start + _ADD_ROWS))
            similarities = queries @ self._blocks.read(rows).T
            inside = np.flatnonzero((own >= start) & (own <= rows[-1]))
            similarities[inside, own[inside] - start] = -2.0
            best = np.maximum(best, similarities.max(axis=1))
        return best

    def search(self, query: Float32Array, k: int, selection: Selection) -> Hits:
        """Return similarities and rows of up to k selected rows, ranked by exact similarity."""
        wanted = _CANDIDATES[self.kind] + 8 * k
        nprobe, clusters = self.nprobe, int(self._index.nlist)
        available = sum(high - low for low, high in selection.ranges)
        while True:
            with self._lock:
                selector: Any = _selector(selection, self.rows)
                params = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)  # type: ignore[call-arg]
                _, found = self._index.search(query[None], wanted, params=params)
            rows = found[0][found[0] >= 0]
            # An exclusion may have thinned the nearest clusters: look further.
            if len(rows) >= min(wanted // 2, available) or nprobe >= clusters:
                break
            nprobe = min(clusters, 4 * nprobe)
        similarities = self._blocks.read(rows) @ query
        return best_of([(similarities, rows)], k)

    def size_bytes(self) -> int:
        """Return the memory of the codes."""
        return int(self.rows * (self._index.code_size + 8))

    def save(self, path: Path) -> None:
        """Write the index and its description; a crash leaves the old ones or none."""
        temporary = path.with_suffix('.tmp')
        with self._lock:
            rows = self.rows
            faiss.write_index(self._index, str(temporary))
        about = {
            'kind': self.kind, 'rows': rows, 'trained_rows': self.trained_rows,
            'nprobe': self.nprobe, 'bytes': temporary.stat().st_size,
            'crc32': _file_checksum(temporary),
        }
        path.with_suffix('.json').unlink(missing_ok=True)
        replace_file(temporary, path)
        temporary.write_text(json.dumps(about))
        replace_file(temporary, path.with_suffix('.json'))

    @classmethod
    def load(cls, blocks: DescriptorBlocks, path: Path, count: int) -> Optional[ClusteredIndex]:
        """Return the index kept in a file, None if there is none that fits the first rows."""
        try:
            about = json.loads(path.with_suffix('.json').read_text())
            if path.stat().st_size != about['bytes'] or _file_checksum(path) != about['crc32']:
                _logger.warning('%s is damaged, the index will be made again', path)
                return None
            if about['rows'] > count or about['kind'] not in _CANDIDATES:
                return None
            index = faiss.read_index(str(path))
            return cls(blocks, about['kind'], index, about['nprobe'], about['trained_rows'])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            _logger.warning('%s cannot be used (%s), the index will be made again', path, error)
            return None


def _empty(kind: str, dim: int, centroids: Float32Array) -> Any:
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    clusters, metric = len(centroids), faiss.METRIC_INNER_PRODUCT
    if kind == 'ivf_int8':
        index: Any = faiss.IndexIVFScalarQuantizer(
            quantizer, dim, clusters, faiss.ScalarQuantizer.QT_8bit, metric, False
        )
    else:
        parts = math.gcd(dim, -(-dim // _PQ_DIMS))
        index = faiss.IndexIVFPQ(quantizer, dim, clusters, parts, 8, metric)
    return index


def _selector(selection: Selection, rows: int) -> Any:
    ranges: list[Range] = selection.ranges
    if selection.mask is None and len(ranges) == 1:
        low, high = ranges[0]
        return None if (low, high) == (0, rows) else faiss.IDSelectorRange(low, high)
    chosen = np.zeros(rows, bool)
    for low, high in ranges:
        chosen[low:high] = True
    if selection.mask is not None:
        # Rows that came after the selection was made are in none of its ranges.
        mask = selection.mask[:rows]
        chosen[: len(mask)] &= mask
    bits: Any = np.packbits(chosen, bitorder='little')
    return faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg]


def _file_checksum(path: Path) -> int:
    crc = 0
    with path.open('rb') as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
