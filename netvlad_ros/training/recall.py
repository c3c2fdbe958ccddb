# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recall@N with its protocol, bootstrap intervals, suppression of doubles, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import InputError
from netvlad_ros.training.places import IntArray
from netvlad_ros.types import Float32Array, FloatArray

RECALLS = (1, 5, 10, 20, 25)
BOOTSTRAP = 2000

# So many times the wanted depth is searched before images of a query's own stamp are taken out:
# the authors' choice for Tokyo Time Machine.
SAME_STAMP_DEPTH = 10

# (Q,) stamps of the queries and (N,) of the database rows.
Stamps = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Recall:
    """Shares of queries with a right image among the best N.

    :param values: by N.
    :param first_right: (Q,) rank of the first right image from 0, a large number if not found.
    :param ranked: (Q, max N) database indices, most similar first, -1 where there are no more.
    """

    values: dict[int, float]
    first_right: IntArray
    ranked: IntArray
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)


def search(
    queries: Float32Array,
    database: Float32Array,
    depth: int,
    group: Optional[IntArray] = None,
    per_group: int = 1,
    stamps: Optional[Stamps] = None,
) -> IntArray:
    """Return (Q, depth) indices of the most similar database rows.

    :param group: (N,) number of the panorama of each row; then only the best of each is kept, as
        the authors do for Tokyo 24/7.
    :param per_group: largest size of a group; that many times ``depth`` rows are searched.
    :param stamps: then rows of a query's own stamp are taken out of its ranking, of which
        ``SAME_STAMP_DEPTH`` times ``depth`` rows are searched.
    """
    import faiss

    wanted = depth * (per_group if group is not None else 1)
    wanted = min(len(database), wanted * (SAME_STAMP_DEPTH if stamps is not None else 1))
    # An index would copy the database: 11 GB of Pitts250k with VGG-16's 32,768 numbers a row.
    _, found = faiss.knn(
        np.ascontiguousarray(queries, dtype=np.float32),
        np.ascontiguousarray(database, dtype=np.float32),
        wanted, metric=faiss.METRIC_INNER_PRODUCT,
    )  # fmt: skip
    found = np.asarray(found, dtype=np.int64)
    ranked = np.full((len(queries), depth), -1, dtype=np.int64)
    for row, indices in enumerate(found):
        if stamps is not None:
            indices = indices[stamps[1][indices] != stamps[0][row]]
        if group is not None:
            _, first = np.unique(group[indices], return_index=True)
            indices = indices[np.sort(first)]
        kept = indices[:depth]
        ranked[row, : len(kept)] = kept
    return ranked


def recall_at(
    queries: Float32Array,
    database: Float32Array,
    right: Sequence[IntArray],
    numbers: Sequence[int] = RECALLS,
    group: Optional[IntArray] = None,
    positions: Optional[FloatArray] = None,
    seed: int = 0,
    stamps: Optional[Stamps] = None,
) -> Recall:
    """Return the recall; all queries count, also those without a right answer.

    :param right: database indices that are right for each query.
    :param positions: (Q, 2) of the queries, for 95 % intervals over distinct positions.
    :param stamps: of queries and database where images of a query's own stamp prove nothing; they
        neither count as found nor take a place in the ranking.
    :raises InputError: the order of lists and descriptors cannot be right.
    """
    if len(right) != len(queries):
        raise InputError(f'{len(queries)} query descriptors for {len(right)} queries')
    per_group = int(np.unique(group, return_counts=True)[1].max()) if group is not None else 1
    ranked = search(queries, database, max(numbers), group, per_group, stamps)
    never = np.iinfo(np.int64).max
    first_right = np.full(len(queries), never, dtype=np.int64)
    for row, answers in enumerate(right):
        hits = np.flatnonzero(np.isin(ranked[row], answers))
        if len(hits):
            first_right[row] = hits[0]
    values = {n: float((first_right < n).mean()) for n in numbers}
    intervals = {}
    if positions is not None:
        intervals = bootstrap(first_right, positions, numbers, seed)
    return Recall(values, first_right, ranked, intervals)


def bootstrap(
    first_right: IntArray, positions: FloatArray, numbers: Sequence[int], seed: int = 0
) -> dict[int, tuple[float, float]]:
    """Return 95 % intervals of recall by drawing distinct query positions with replacement.

    Queries of one position fail together, so drawing queries would give intervals that are far
    too narrow (Pitts30k test: 6,816 queries at 284 positions).
    """
    place = np.unique(positions, axis=0, return_inverse=True)[1].reshape(-1)
    size = np.bincount(place)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), BOOTSTRAP)
    total = draws @ size
    intervals = {}
    for n in numbers:
        hits = draws @ np.bincount(place, weights=first_right < n, minlength=len(size))
        low, high = np.percentile(hits / total, [2.5, 97.5])
        intervals[n] = (float(low), float(high))
    return intervals


def looks_misordered(recall: Recall, database: int) -> bool:
    """Return whether recall is that of chance at every N: list and descriptors out of step."""
    numbers = sorted(recall.values)
    if database < 50 * numbers[-1] or recall.values[numbers[-1]] > 0.5:
        return False
    # By chance recall grows with N almost in proportion; a poor model finds most of it early.
    first, last = recall.values[numbers[0]], recall.values[numbers[-1]]
    return last > 0 and first < 2.0 * last * numbers[0] / numbers[-1]


def mean_average_precision(
    ranked: npt.NDArray[np.int64], right: Sequence[IntArray], junk: Sequence[IntArray]
) -> float:
    """Return mAP of retrieval sets by the trapezoid rule of the Oxford Buildings evaluation.

    Junk images are taken out of the ranking. A query without right images counts as 0.

    :param ranked: (Q, N) complete rankings.
    """
    values = []
    for row, answers, ignored in zip(ranked, right, junk, strict=True):
        kept = row[~np.isin(row, ignored)]
        hits = np.flatnonzero(np.isin(kept, answers))
        total = 0.0
        for found, rank in enumerate(hits):
            before = 1.0 if rank == 0 else found / rank
            total += (before + (found + 1) / (rank + 1)) / 2
        values.append(total / len(answers) if len(answers) else 0.0)
    return float(np.mean(values)) if values else 0.0
