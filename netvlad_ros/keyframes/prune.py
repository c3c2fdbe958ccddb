# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Thins a map to a budget: of keyframes that look alike, one stays; says what that costs.

The most similar pairs are looked at first. Of a pair, the one that does not represent its place
goes, else the later one. A keyframe that stood in for a removed one stays in that round, so that
what was removed keeps its nearest look-alike for as long as the budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes.reader import MapReader
from netvlad_ros.keyframes.writer import MapWriter, Selector
from netvlad_ros.types import Float32Array

_NEIGHBOURS = 8
_MAX_QUERIES = 2000
_SEED = 1
_QUERY_BATCH = 256


@dataclass(frozen=True)
class PruneReport:
    """What thinning did.

    :param queries: keyframes that see a place which the map has from another visit.
    :param recall_before: share of them whose most similar keyframe of another visit shows their
        place, in the whole map; NaN without queries.
    :param recall_after: the same queries in the thinned map.
    """

    keyframes_before: int
    keyframes_after: int
    queries: int
    recall_before: float
    recall_after: float


@dataclass(frozen=True)
class _Rows:
    ids: npt.NDArray[np.int64]
    stamps_ns: npt.NDArray[np.int64]
    sessions: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    representative: npt.NDArray[np.bool_]
    vectors: Float32Array


def prune(folder: Path, target: Path, budget: int, gap_s: float = 20.0) -> PruneReport:
    """Write a map with at most ``budget`` keyframes of another; ids stay.

    :param gap_s: keyframes of one session nearer in time than this are of one visit.
    :raises MapError: the budget is not positive.
    """
    if budget < 1:
        raise MapError(f'budget is {budget!r} keyframes, it must be at least 1')
    with MapReader(folder) as reader:
        rows = _read(reader)
        kept = choose(rows.vectors, rows.representative, budget)
        queries, before, after = _recall(rows, kept, int(gap_s * 1e9))
        chosen = set(rows.ids[kept].tolist())
        with MapWriter(target, reader.model_id, reader.dim, reader.dtype) as writer:
            writer.copy(
                reader, Selector(lambda table, row: table != 'keyframes' or row['id'] in chosen)
            )
            writer.note('prune', {'from': folder.name, 'budget': budget})
    return PruneReport(len(rows.ids), len(chosen), queries, before, after)


def _read(reader: MapReader) -> _Rows:
    rows = reader.store.rows(
        'SELECT k.id, k.stamp_ns, k.session_id, k.place_id, p.representative_id = k.id '
        'FROM keyframes k JOIN places p ON p.id = k.place_id ORDER BY k.id'
    )
    table = np.array(rows, np.int64).reshape(-1, 5)
    vectors = np.concatenate(
        [np.empty((0, reader.dim), np.float32), *reader.descriptors()]
    )
    ids, stamps, sessions, places, representative = table.T
    return _Rows(ids, stamps, sessions, places, representative.astype(bool), vectors)


def choose(
    vectors: Float32Array, representative: npt.NDArray[np.bool_], budget: int
) -> npt.NDArray[np.int64]:
    """Return the rows (sorted) that stay."""
    kept = np.arange(len(vectors))
    while len(kept) > budget:
        gone = _redundant(vectors[kept], representative[kept], len(kept) - budget)
        kept = np.delete(kept, gone)
    return kept


def _redundant(
    vectors: Float32Array, representative: npt.NDArray[np.bool_], wanted: int
) -> list[int]:
    """Return up to ``wanted`` rows to remove in one round, at least one."""
    count = len(vectors)
    neighbours = min(count, _NEIGHBOURS + 1)
    similar, near = faiss.knn(vectors, vectors, neighbours, metric=faiss.METRIC_INNER_PRODUCT)
    rows = np.repeat(np.arange(count), neighbours)
    pairs = np.stack([rows, near.reshape(-1)], axis=1)
    order = np.argsort(-similar.reshape(-1), kind='stable')
    gone: set[int] = set()
    protected: set[int] = set()
    for spare_representatives in (True, False):
        for a, b in pairs[order[pairs[order, 0] < pairs[order, 1]]].tolist():
            # b is the later one; it goes unless it alone stands for its place
            loser, keeper = (a, b) if representative[b] and not representative[a] else (b, a)
            if loser in gone or keeper in gone or loser in protected:
                continue
            if spare_representatives and representative[loser]:
                continue
            gone.add(loser)
            protected.add(keeper)
            if len(gone) == wanted:
                return sorted(gone)
        if gone:
            return sorted(gone)
    return list(range(count - wanted, count))


def _recall(
    rows: _Rows, kept: npt.NDArray[np.int64], gap_ns: int
) -> tuple[int, float, float]:
    """Return the number of queries and recall@1 on revisits before and after."""
    several = np.flatnonzero(np.bincount(rows.places)[rows.places] > 1)
    if len(several) > _MAX_QUERIES:
        rng = np.random.default_rng(_SEED)
        several = np.sort(rng.choice(several, _MAX_QUERIES, replace=False))
    is_kept = np.zeros(len(rows.ids), bool)
    is_kept[kept] = True
    queries = before = after = 0
    for start in range(0, len(several), _QUERY_BATCH):
        batch = several[start : start + _QUERY_BATCH]
        similar = rows.vectors[batch] @ rows.vectors.T
        near_in_time = (rows.sessions[batch, None] == rows.sessions[None]) & (
            np.abs(rows.stamps_ns[batch, None] - rows.stamps_ns[None]) <= gap_ns
        )
        similar[near_in_time] = -2.0
        same = rows.places[batch, None] == rows.places[None]
        is_query = (same & ~near_in_time).any(axis=1)
        queries += int(is_query.sum())
        row = np.arange(len(batch))
        before += int((same[row, similar.argmax(axis=1)] & is_query).sum())
        similar[:, ~is_kept] = -2.0
        after += int((same[row, similar.argmax(axis=1)] & is_query).sum())
    if queries == 0:
        return 0, float('nan'), float('nan')
    return queries, before / queries, after / queries
