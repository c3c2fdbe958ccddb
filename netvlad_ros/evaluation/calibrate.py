# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fit what a score means: isotonic or logistic, whichever predicts unseen stretches better.

Folds are contiguous stretches of trajectory, since neighbouring queries are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from netvlad_ros.evaluation.evaluation import GEOMETRY, RETRIEVAL, Evaluation
from netvlad_ros.evaluation.metrics import (
    Decisions,
    precision_recall,
    threshold_for_precision,
)
from netvlad_ros.evaluation.thresholds import PRECISIONS, segments_of
from netvlad_ros.evaluation.truth import RIGHT, BoolArray
from netvlad_ros.loop_closure.calibration import SCORES, Calibration
from netvlad_ros.types import FloatArray

FOLDS = 5
RELIABILITY_BINS = 10
Points = tuple[tuple[float, float], ...]
Predictor = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class CalibrationFit:
    """A calibration with what cross-validation says of it.

    :param log_loss: of held-out decisions in nats, by kind; smaller is better.
    :param brier: mean squared error of the held-out probabilities of the chosen kind.
    :param reliability: (mean predicted, share right, count) by bin of held-out probability.
    """

    calibration: Calibration
    log_loss: Mapping[str, float]
    brier: float
    reliability: tuple[tuple[float, float, int], ...]
    decisions: int
    right: int

    def summary(self) -> dict[str, Any]:
        """Return what a report says of the calibration."""
        return {
            'score': self.calibration.score,
            'kind': self.calibration.kind,
            'decisions': self.decisions,
            'right': self.right,
            'held_out_log_loss': dict(self.log_loss),
            'held_out_brier': self.brier,
            'reliability': [
                {'predicted': p, 'right': r, 'count': n} for p, r, n in self.reliability
            ],
            'thresholds': dict(self.calibration.thresholds),
        }


def scored_decisions(evaluation: Evaluation, score: str) -> Optional[Decisions]:
    """Return the decisions of a run by one of ``SCORES``; None where there are none.

    The geometric score is that of the geometry stage; the others are of each query's best match.
    """
    judgement, replay = evaluation.judgement, evaluation.replay
    if judgement is None:
        return None
    if score == 'verification_score':
        return judgement.decisions.get(GEOMETRY)
    made, declared = judgement.decisions[RETRIEVAL], judgement.declared[RETRIEVAL]
    index_of = replay.index_of
    values = np.full(len(made.scores), -np.inf)
    for row, query in enumerate(judgement.queries):
        for candidate in replay.candidates[query]:
            if index_of.get(candidate.keyframe_id) == declared[row]:
                value = float(getattr(candidate, score))
                values[row] = value if math.isfinite(value) else -np.inf
    return Decisions(values, made.labels, made.has_revisit)


def fit_calibration(
    runs: Sequence[Decisions], model_id: str, score: str, protocol: Mapping[str, Any]
) -> Optional[CalibrationFit]:
    """Return the better calibration of the decisions of one or more runs.

    :returns: None where fewer than two right or two wrong decisions were made.
    """
    assert score in SCORES
    scores, right, folds = _pooled(runs)
    if right.sum() < 2 or (~right).sum() < 2:
        return None
    held_out: dict[str, FloatArray] = {}
    for kind, fit in (('isotonic', _fit_isotonic), ('logistic', _fit_logistic)):
        predicted = np.full(len(scores), math.nan)
        for fold in range(FOLDS):
            test = folds == fold
            if test.any():
                predicted[test] = fit(scores[~test], right[~test])[1](scores[test])
        held_out[kind] = predicted
    log_loss = {kind: _log_loss(p, right) for kind, p in held_out.items()}
    best = min(log_loss, key=lambda kind: log_loss[kind])
    parameters = (_fit_isotonic if best == 'isotonic' else _fit_logistic)(scores, right)[0]
    pooled = Decisions(
        np.concatenate([d.scores for d in runs]),
        np.concatenate([d.labels for d in runs]),
        np.concatenate([d.has_revisit for d in runs]),
    )
    curve = precision_recall(pooled)
    thresholds = {str(p): threshold_for_precision(curve, p) for p in PRECISIONS}
    calibration = Calibration(
        model_id=model_id,
        score=score,
        kind=best,
        thresholds={p: value for p, value in thresholds.items() if math.isfinite(value)},
        protocol=protocol,
        **parameters,
    )
    return CalibrationFit(
        calibration,
        log_loss,
        float(np.mean((held_out[best] - right) ** 2)),
        _reliability(held_out[best], right),
        len(scores),
        int(right.sum()),
    )


def _pooled(
    runs: Sequence[Decisions],
) -> tuple[FloatArray, BoolArray, npt.NDArray[np.int64]]:
    """Return scores, rightness and fold of all judged decisions that declare something.

    There are at least two folds where there are two decisions.
    """
    scores, right, folds = [], [], []
    stretches = 0
    for decisions in runs:
        kept = np.flatnonzero(decisions.judged & np.isfinite(decisions.scores))
        # Ten stretches, dealt out in turn: each fold sees the start and the end of a drive. They
        # go on over the runs: many runs of one decision each must not share a fold.
        for rows in segments_of(len(kept), 2 * FOLDS):
            folds.append(np.full(len(rows), stretches % FOLDS, dtype=np.int64))
            stretches += len(rows) > 0
        scores.append(decisions.scores[kept])
        right.append(decisions.labels[kept] == RIGHT)
    return np.concatenate(scores), np.concatenate(right), np.concatenate(folds)


def _smoothed(right: BoolArray) -> FloatArray:
    """Return targets that finite data supports instead of 0 and 1 (Platt 1999)."""
    positives, negatives = int(right.sum()), int((~right).sum())
    return np.where(right, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


def _fit_isotonic(scores: FloatArray, right: BoolArray) -> tuple[dict[str, Any], Predictor]:
    order = np.argsort(scores, kind='stable')
    x, first = np.unique(scores[order], return_index=True)
    weights = np.diff(np.append(first, len(order))).astype(np.float64)
    targets = np.add.reduceat(_smoothed(right)[order], first) / weights
    y = isotonic_regression(targets, weights=weights, increasing=True).x
    # Of each flat stretch only its ends are needed.
    ends = np.ones(len(x), dtype=np.bool_)
    ends[1:-1] = (np.diff(y)[:-1] > 1e-12) | (np.diff(y)[1:] > 1e-12)
    xs, ys = x[ends], np.maximum.accumulate(np.clip(y[ends], 0.0, 1.0))
    points: Points = tuple(zip(xs.tolist(), ys.tolist(), strict=True))
    return {'points': points}, lambda s: np.interp(s, xs, ys)


def _fit_logistic(scores: FloatArray, right: BoolArray) -> tuple[dict[str, Any], Predictor]:
    targets = _smoothed(right)
    centre, width = float(scores.mean()), float(scores.std()) or 1.0
    z = (scores - centre) / width

    def loss(parameters: FloatArray) -> float:
        logits = parameters[0] * z + parameters[1]
        return float(np.mean(np.logaddexp(0.0, logits) - targets * logits))

    # A score that falls with probability would not be a score: the slope stays positive.
    found = minimize(loss, np.asarray([1.0, 0.0]), bounds=[(0.0, 1e3), (-1e3, 1e3)])
    slope = float(found.x[0]) / width
    intercept = float(found.x[1]) - slope * centre
    return (
        {'slope': slope, 'intercept': intercept},
        lambda s: np.asarray(expit(slope * s + intercept), dtype=np.float64),
    )


def _log_loss(predicted: FloatArray, right: BoolArray) -> float:
    p = np.clip(predicted, 1e-6, 1.0 - 1e-6)
    return float(-np.mean(np.where(right, np.log(p), np.log1p(-p))))


def _reliability(
    predicted: FloatArray, right: BoolArray
) -> tuple[tuple[float, float, int], ...]:
    bins = np.minimum((predicted * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    out = []
    for number in range(RELIABILITY_BINS):
        rows = bins == number
        if rows.any():
            mean, share = float(predicted[rows].mean()), float(right[rows].mean())
            out.append((mean, share, int(rows.sum())))
    return tuple(out)
