# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of merit as pure functions on arrays.

A *decision* is the one match a system declares for a query, with a score. Its label is RIGHT,
WRONG or NEITHER. A query whose declared match is NEITHER is not judged: it counts in no
numerator and no denominator. Recall counts the judged queries that have a revisit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math

import numpy as np
import numpy.typing as npt

from netvlad_ros.evaluation.truth import (
    NEITHER,
    RIGHT,
    WRONG,
    BoolArray,
    Int8Array,
    Int64Array,
)
from netvlad_ros.types import FloatArray

NO_MATCH = -1
RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Decisions:
    """What a system declared for each of Q queries.

    :param scores: (Q,) larger is surer; -inf where it declared nothing.
    :param labels: (Q,) of the declared match; WRONG where it declared nothing.
    :param has_revisit: (Q,) the query has at least one right match.
    """

    scores: FloatArray
    labels: Int8Array
    has_revisit: BoolArray

    def subset(self, rows: npt.NDArray[np.int64]) -> Decisions:
        """Return the decisions of some queries, in the given order, repeats allowed."""
        return Decisions(self.scores[rows], self.labels[rows], self.has_revisit[rows])

    @property
    def judged(self) -> BoolArray:
        """(Q,) the declared match is right or wrong."""
        return np.asarray(self.labels != NEITHER, dtype=np.bool_)


@dataclass(frozen=True)
class PrCurve:
    """Precision and recall at every threshold that changes them, highest threshold first.

    Precision is TP / (TP + FP), and 1 where nothing is declared (0/0). Recall is TP / judged
    queries with a revisit, and NaN where there is none (0/0).

    :param with_revisit: the queries that recall counts; without a threshold only this tells
        that recall is 0 from that it has no meaning.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    with_revisit: int


def precision_recall(decisions: Decisions) -> PrCurve:
    """Return the curve over all thresholds; equal scores pass a threshold together.

    A right decision on a query without a listed revisit (a transform can be right where places
    are far apart) counts for precision only.
    """
    keep = decisions.judged
    scores, right = decisions.scores[keep], decisions.labels[keep] == RIGHT
    has_revisit = decisions.has_revisit[keep]
    declared = np.isfinite(scores)
    order = np.argsort(-scores[declared], kind='stable')
    sorted_scores = scores[declared][order]
    tp = np.cumsum(right[declared][order])
    found = np.cumsum((right & has_revisit)[declared][order])
    total = np.arange(1, len(order) + 1)
    last_of_tie = np.append(sorted_scores[1:] != sorted_scores[:-1], True)[: len(order)]
    with_revisit = int(has_revisit.sum())
    recall = found / with_revisit if with_revisit else np.full(len(order), math.nan)
    return PrCurve(
        sorted_scores[last_of_tie], (tp / total)[last_of_tie], recall[last_of_tie], with_revisit
    )


def area_under(curve: PrCurve) -> float:
    """Return average precision: the sum of precision times the step of recall.

    NaN without a query that has a revisit, 0 where nothing is declared.
    """
    if not curve.with_revisit:
        return math.nan
    steps = np.diff(curve.recall, prepend=0.0)
    return float(np.sum(steps * curve.precision))


def recall_at_precision(curve: PrCurve, precision: float) -> float:
    """Return the largest recall at a threshold whose precision is at least the given one.

    0 where no threshold reaches it, NaN where no query has a revisit.
    """
    if not curve.with_revisit:
        return math.nan
    good = curve.precision >= precision
    return float(curve.recall[good].max()) if good.any() else 0.0


def threshold_for_precision(curve: PrCurve, precision: float) -> float:
    """Return the threshold with the largest recall at the given precision.

    It lies halfway between the lowest score it accepts and the next lower one, so that it has a
    margin on both sides. NaN where no threshold reaches the precision.
    """
    good = np.flatnonzero(curve.precision >= precision)
    if not len(good):
        return math.nan
    last = int(good[-1])
    accepted = float(curve.thresholds[last])
    if last + 1 == len(curve.thresholds):
        return accepted
    return 0.5 * (accepted + float(curve.thresholds[last + 1]))


def at_threshold(decisions: Decisions, threshold: float) -> tuple[float, float]:
    """Return precision and recall of the decisions that reach a threshold, 0/0 as in PrCurve."""
    declared = decisions.judged & (decisions.scores >= threshold)
    right = decisions.labels == RIGHT
    found = int((declared & right & decisions.has_revisit).sum())
    with_revisit = int((decisions.judged & decisions.has_revisit).sum())
    count = int(declared.sum())
    return (
        int((declared & right).sum()) / count if count else 1.0,
        found / with_revisit if with_revisit else math.nan,
    )


def false_alarm_rate(decisions: Decisions, threshold: float) -> float:
    """Return the share of judged queries without a revisit that declare a wrong match.

    NaN where every query has a revisit (0/0).
    """
    without = decisions.judged & ~decisions.has_revisit
    alarms = without & (decisions.scores >= threshold) & (decisions.labels == WRONG)
    return float(alarms.sum() / without.sum()) if without.any() else math.nan


def recall_at(ranked_labels: Int8Array, has_revisit: BoolArray) -> dict[str, float]:
    """Return recall@N for N in ``RECALL_AT``.

    The queries are the same for all N: those with a revisit whose best match is not NEITHER.
    NaN where there is none.

    :param ranked_labels: (Q, max N) labels of the best matches, WRONG where there are fewer.
    """
    counted = has_revisit & (ranked_labels[:, 0] != NEITHER)
    if not counted.any():
        return {str(n): math.nan for n in RECALL_AT}
    hits = ranked_labels[counted] == RIGHT
    return {str(n): float(hits[:, :n].any(axis=1).mean()) for n in RECALL_AT}


def recall_at_1(decisions: Decisions) -> float:
    """Return the share of the queries that ``recall_at`` counts whose match is right."""
    counted = decisions.has_revisit & decisions.judged
    return float((decisions.labels[counted] == RIGHT).mean()) if counted.any() else math.nan


def top_k_precision_recall(
    ranked_labels: Int8Array, ranked_scores: FloatArray, has_revisit: BoolArray, k: int
) -> PrCurve:
    """Return the curve where every one of the k best matches over the threshold is declared.

    Precision counts declared pairs (NEITHER left out); recall counts queries with a revisit that
    have at least one right pair declared. It shows what a verifier that sees k candidates gets.
    """
    labels, scores = ranked_labels[:, :k], ranked_scores[:, :k]
    right = np.where(labels == RIGHT, scores, -np.inf)
    first_right = right.max(axis=1, initial=-np.inf)[has_revisit]
    judged = (labels != NEITHER) & np.isfinite(scores)
    thresholds = np.unique(scores[judged])[::-1]
    all_pairs = np.sort(scores[judged])
    right_pairs = np.sort(scores[judged & (labels == RIGHT)])
    declared = len(all_pairs) - np.searchsorted(all_pairs, thresholds)
    declared_right = len(right_pairs) - np.searchsorted(right_pairs, thresholds)
    found = len(first_right) - np.searchsorted(np.sort(first_right), thresholds)
    recall = found / len(first_right) if len(first_right) else np.full(len(thresholds), math.nan)
    precision = declared_right / np.maximum(declared, 1)
    return PrCurve(thresholds, precision, recall, len(first_right))


def rank_matches(
    similarity: npt.NDArray[np.float32],
    allowed: BoolArray,
    returned: Sequence[Sequence[tuple[int, float]]],
    depth: int,
) -> tuple[Int64Array, FloatArray]:
    """Return the best matches of some keyframes: (R, depth) columns and scores.

    What the detector returned comes first, in its order; where it returned fewer than ``depth``
    the list goes on with the most similar of the rest. Pairs that are not allowed are left out.
    Missing places hold NO_MATCH and -inf.

    :param similarity: (R, N) of these keyframes and all; ``allowed`` likewise.
    :param returned: by keyframe, (column, score) of the detector's candidates, best first.
    """
    count = len(similarity)
    columns = np.full((count, depth), NO_MATCH, dtype=np.int64)
    scores = np.full((count, depth), -np.inf)
    for row in range(count):
        best = [(c, s) for c, s in returned[row] if allowed[row, c]][:depth]
        if len(best) < depth:
            left = allowed[row].copy()
            left[[c for c, _ in best]] = False
            free, missing = np.flatnonzero(left), depth - len(best)
            if len(free) > missing:  # sorting all would take most of the time
                least = np.partition(similarity[row, free], -missing)[-missing]
                free = free[similarity[row, free] >= least]
            order = np.argsort(-similarity[row, free], kind='stable')[:missing]
            best += [(int(c), float(similarity[row, c])) for c in free[order]]
        for rank, (column, value) in enumerate(best):
            columns[row, rank], scores[row, rank] = column, value
    return columns, scores


def labels_of(labels: Int8Array, columns: Int64Array) -> Int8Array:
    """Return (R, depth) labels of ranked columns of (R, N); WRONG where there is no match."""
    picked = np.take_along_axis(labels, np.maximum(columns, 0), axis=1)
    return np.where(columns == NO_MATCH, WRONG, picked).astype(np.int8)


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class StageResult:
    """The figures of one stage of the pipeline.

    :param recommended: threshold by precision ('0.99', '1.0').
    """

    curve: PrCurve
    auc: float
    recall_at_100_precision: Interval
    recommended: Mapping[str, Interval] = field(default_factory=dict)
    false_alarm_rate: Mapping[str, float] = field(default_factory=dict)
    queries: int = 0
    judged_with_revisit: int = 0
