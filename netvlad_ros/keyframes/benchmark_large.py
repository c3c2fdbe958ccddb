# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measures a map of a million keyframes: search, recall against exact, memory, cold open.

The vectors are those of a robot that drives through districts that look alike: places scatter
around their district's mean, and each place is seen several times, nearly the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np

from netvlad_ros.config import MapConfig
from netvlad_ros.keyframes.benchmark import MODEL, memory_mb, unit_vectors
from netvlad_ros.keyframes.map import KeyframeMap
from netvlad_ros.keyframes.records import Session
from netvlad_ros.keyframes.store import utc_now
from netvlad_ros.keyframes.writer import MapWriter
from netvlad_ros.types import Camera, Float32Array

DIM = 512
_VIEWS = 5  # of each place
_PLACES_PER_DISTRICT = 100
# Similarities that these give: within a district about 0.5, of two views of a place about 0.9.
_DISTRICT_SPREAD, _VIEW_SPREAD = 1.0, 0.33
_QUERIES = 500
_BATCH = 10_000
Progress = Callable[..., Iterator[int]]


class Views:
    """Makes views of places; the same place again and again looks nearly the same."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.places = max(1, count // _VIEWS)
        districts = unit_vectors(max(1, self.places // _PLACES_PER_DISTRICT), DIM, seed + 1)
        self._districts = districts

    def see(self, places: np.ndarray) -> Float32Array:
        """Return a new view of each place as (N, 512) unit float32."""
        centres = self._districts[places % len(self._districts)].copy()
        scale = 1.0 / np.sqrt(DIM)
        # A place's own direction comes from its number: it need not be kept.
        for row, place in enumerate(places.tolist()):
            own = np.random.default_rng(place).standard_normal(DIM, dtype=np.float32)
            centres[row] += _DISTRICT_SPREAD * scale * own
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        noise = self._rng.standard_normal(centres.shape, dtype=np.float32)
        views = centres + _VIEW_SPREAD * scale * noise
        views /= np.linalg.norm(views, axis=1, keepdims=True)
        return np.asarray(views, np.float32)


def large_map(folder: Path, count: int, threads: int, progress: Progress) -> dict[str, float]:
    """Build, train, then search in a new process with the files dropped from the cache."""
    views = Views(count)
    path = folder / 'map'
    queries = views.see(np.random.default_rng(9).integers(0, views.places, _QUERIES))
    start = time.perf_counter()
    truth = _build(path, views, count, queries, progress)
    figures = {'build s': time.perf_counter() - start}
    config = MapConfig(threads=threads)
    start = time.perf_counter()
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        store.settle()
        kind = store.stats()['index']
    figures[f'train {kind} s'] = time.perf_counter() - start
    figures['bytes on disk a keyframe'] = (
        sum(file.stat().st_size for file in path.iterdir()) / count
    )
    np.save(folder / 'queries.npy', queries)
    for file in path.iterdir():
        with file.open('rb') as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    result = subprocess.run(
        [sys.executable, '-m', __name__, str(path), str(folder / 'queries.npy'), str(threads)],
        capture_output=True, text=True, check=True,
    )
    found: dict[str, float] = json.loads(result.stdout)
    best = np.array(found.pop('best'))
    figures['recall@1 of exact (want >= 0.99)'] = float(np.mean(best >= truth - 1e-4))
    return figures | found


def _build(
    path: Path, views: Views, count: int, queries: Float32Array, progress: Progress
) -> Float32Array:
    """Write the map in batches; returns the best exact similarity of each query."""
    best = np.full(len(queries), -2.0, np.float32)
    with MapWriter(path, MODEL, DIM, 'float16') as writer:
        with writer.store.transaction():
            writer.store.put_session(0, Session('benchmark', '', MODEL, utc_now()))
            writer.store.put_camera(0, 0, Camera())
            for place in range(views.places + 1):
                writer.store.put('places', place, place, place, 1, None)
        for batch in progress(range(-(-count // _BATCH)), -(-count // _BATCH), 'batches', 'build'):
            first = batch * _BATCH
            ids = np.arange(first, min(count, first + _BATCH))
            # A lap after the other: views of a place lie far apart in the map.
            places = ids % views.places
            stored = views.see(places).astype(np.float16)
            best = np.maximum(best, (queries @ stored.astype(np.float32).T).max(axis=1))
            with writer.store.transaction():
                for keyframe_id, place, row in zip(
                    ids.tolist(), places.tolist(), stored, strict=True
                ):
                    checksum = writer.blocks.write(keyframe_id, keyframe_id, row)
                    writer.store.put(
                        'keyframes', keyframe_id, keyframe_id * 10**8, 0, 0, place, place, None,
                        checksum,
                    )
            writer.keyframes += len(ids)
    return best


def _search(path: Path, queries: Float32Array, threads: int) -> dict[str, object]:
    before = memory_mb()
    start = time.perf_counter()
    with KeyframeMap.open(path, MODEL, DIM, MapConfig(threads=threads), read_only=True) as store:
        opened_s = time.perf_counter() - start
        times, best = [], []
        for query in queries:
            start = time.perf_counter()
            hits = store.search(query, 5)
            times.append(1e3 * (time.perf_counter() - start))
            best.append(hits[0].similarity)
        after = memory_mb()
        return {
            'cold open s (want < 5)': opened_s,
            'first search ms': times[0],
            'search p50 ms': float(np.percentile(times[20:], 50)),
            'search p95 ms (want < 30)': float(np.percentile(times[20:], 95)),
            'resident MB (want < 1500)': after['VmRSS'],
            'of it without mapped files MB': after['RssAnon'],
            'resident before open MB': before['VmRSS'],
            'best': best,
        }


if __name__ == '__main__':
    arguments = sys.argv[1:]
    print(json.dumps(_search(Path(arguments[0]), np.load(arguments[1]), int(arguments[2]))))  # noqa: T201
