# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds the data chose, with intervals from a bootstrap over trajectory segments."""

from __future__ import annotations

from collections.abc import Callable
import math

import numpy as np

from netvlad_ros.evaluation.metrics import (
    Decisions,
    Interval,
    StageResult,
    area_under,
    false_alarm_rate,
    precision_recall,
    recall_at_precision,
    threshold_for_precision,
)
from netvlad_ros.evaluation.truth import Int64Array

PRECISIONS = (0.99, 1.0)
SEGMENTS = 10
RESAMPLES = 200
CONFIDENCE = 0.95


def segments_of(count: int, segments: int = SEGMENTS) -> list[Int64Array]:
    """Return indices 0..count-1 in contiguous runs of nearly equal length.

    Neighbouring queries of a drive are not independent; whole stretches of it nearly are.
    """
    runs = np.array_split(np.arange(count, dtype=np.int64), max(1, min(segments, count)))
    return [np.asarray(run, dtype=np.int64) for run in runs]


def bootstrap(
    decisions: Decisions,
    statistic: Callable[[Decisions], float],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a statistic and its percentile interval over resampled trajectory segments.

    Resamples on which the statistic is undefined (NaN) are left out; the interval is NaN where
    none is left.
    """
    value = statistic(decisions)
    segments = segments_of(len(decisions.scores))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        picked = rng.integers(0, len(segments), len(segments))
        rows = np.concatenate([segments[i] for i in picked])
        values.append(statistic(decisions.subset(rows)))
    defined = np.asarray([v for v in values if not math.isnan(v)])
    if not len(defined):
        return Interval(value)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


def judge(decisions: Decisions) -> StageResult:
    """Return all figures of one stage."""
    curve = precision_recall(decisions)
    recommended = {
        str(precision): bootstrap(
            decisions,
            lambda d, p=precision: threshold_for_precision(precision_recall(d), p),  # type: ignore[misc]
        )
        for precision in PRECISIONS
    }
    return StageResult(
        curve=curve,
        auc=area_under(curve),
        recall_at_100_precision=bootstrap(
            decisions, lambda d: recall_at_precision(precision_recall(d), 1.0)
        ),
        recommended=recommended,
        false_alarm_rate={
            name: false_alarm_rate(decisions, interval.value)
            for name, interval in recommended.items()
            if not math.isnan(interval.value)
        },
        queries=len(decisions.scores),
        judged_with_revisit=int((decisions.judged & decisions.has_revisit).sum()),
    )
