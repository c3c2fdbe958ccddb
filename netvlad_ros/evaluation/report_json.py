# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The machine-readable results: report.json, closures.csv and trajectory.tum."""

from __future__ import annotations

from collections import Counter
import csv
import io
import math
from typing import Any, Optional

import numpy as np

from netvlad_ros import __version__
from netvlad_ros.config import to_dict
from netvlad_ros.evaluation.closures import PoseError
from netvlad_ros.evaluation.evaluation import (
    RETRIEVAL,
    Evaluation,
    candidate_precision,
    verified_precision_recall,
)
from netvlad_ros.evaluation.metrics import Interval, PrCurve, StageResult
from netvlad_ros.evaluation.protocol import describe
from netvlad_ros.evaluation.truth import NEITHER, RIGHT, WRONG
from netvlad_ros.geometry import tum_row, xyz_quat_from_pose
from netvlad_ros.types import ClosureStatus, FloatArray

# Everything else in report.json is the same, bit for bit, in every run on one machine.
TIMING_FIELDS = ('latency_ms', 'peak_rss_mb', 'wall_s')
LATENCY_STEPS = ('descriptor', 'search', 'verify', 'total')
LABEL_NAMES = {int(RIGHT): 'right', int(WRONG): 'wrong', int(NEITHER): 'neither'}


def number(value: float) -> Optional[float]:
    """Return a float that JSON can hold: None for NaN and infinities."""
    return None if not math.isfinite(value) else float(value)


def to_report(evaluation: Evaluation, command: str) -> dict[str, Any]:
    """Return the content of report.json; figures without a meaning are null (0/0)."""
    replay, judgement = evaluation.replay, evaluation.judgement
    precision, recall = verified_precision_recall(evaluation)
    statuses = Counter(closure.status for closure in replay.closures)
    stage = None if judgement is None else judgement.stages[RETRIEVAL]
    listed = evaluation.ground_truth.listed is not None
    return {
        'source': evaluation.source,
        'name': evaluation.name,
        'topics': {what: topic or None for what, topic in evaluation.topics.items()},
        'command': command,
        'version': __version__,
        'model_id': replay.model_id,
        'config': to_dict(replay.config),
        'protocol': describe(evaluation.protocol, replay.config, listed),
        'frames': replay.frames,
        'skipped': dict(replay.skipped),
        'keyframes': len(replay.keyframes),
        'keyframes_without_true_pose': _without_pose(evaluation),
        'queries': None if judgement is None else len(judgement.queries),
        'queries_with_revisit': (
            None if judgement is None else int(judgement.has_revisit.sum())
        ),
        'queries_judged_with_revisit': None if stage is None else stage.judged_with_revisit,
        'recall_at': {
            n: None if judgement is None else number(judgement.recall_at[n])
            for n in ('1', '5', '10')
        },
        'recall_at_1': None if judgement is None else _interval(judgement.recall_at_1),
        'pr_curve': None if stage is None else _curve(stage.curve),
        'auc': None if stage is None else number(stage.auc),
        'recall_at_100_precision': (
            None if stage is None else number(stage.recall_at_100_precision.value)
        ),
        'recommended_threshold': {
            p: None if stage is None else number(stage.recommended[p].value)
            for p in ('0.99', '1.0')
        },
        'candidates_at_threshold': {p: _candidates(evaluation, p) for p in ('0.99', '1.0')},
        'stages': (
            None
            if judgement is None
            else {name: _stage(result) for name, result in judgement.stages.items()}
        ),
        'baselines': {name: _stage(result) for name, result in evaluation.baselines.items()},
        'top_k_pr': (
            None
            if judgement is None
            else {k: _curve(curve) for k, curve in judgement.top_k.items()}
        ),
        'closures': {s.name.lower(): statuses.get(s, 0) for s in ClosureStatus},
        'verified_precision': precision,
        'verified_recall': recall,
        'pose_errors': (
            None if judgement is None else pose_error_summary(judgement.pose_errors)
        ),
        'latency_ms': {
            step: _percentiles(replay.latency_ms.get(step, [])) for step in LATENCY_STEPS
        },
        'peak_rss_mb': round(replay.peak_rss_mb, 1),
        'wall_s': round(replay.wall_s, 3),
    }


def _without_pose(evaluation: Evaluation) -> Optional[int]:
    """Return how many keyframes have no true pose, None where no poses are known at all."""
    if evaluation.judgement is None or evaluation.ground_truth.poses is None:
        return None
    return int((~evaluation.judgement.truth.known).sum())


def _candidates(evaluation: Evaluation, precision: str) -> Optional[dict[str, Any]]:
    """Return how right all candidates are at the threshold learnt on the best of each query."""
    judgement = evaluation.judgement
    threshold = math.nan
    if judgement is not None:
        threshold = judgement.stages[RETRIEVAL].recommended[precision].value
    if judgement is None or math.isnan(threshold):
        return None
    reached, count = candidate_precision(evaluation.replay, judgement.truth, threshold)
    return {'precision': number(reached), 'count': count}


def _curve(curve: PrCurve) -> list[dict[str, Optional[float]]]:
    rows = zip(curve.thresholds, curve.precision, curve.recall, strict=True)
    return [
        {'threshold': number(t), 'precision': number(p), 'recall': number(r)} for t, p, r in rows
    ]


def _interval(interval: Interval) -> dict[str, Optional[float]]:
    return {
        'value': number(interval.value),
        'low_95': number(interval.low),
        'high_95': number(interval.high),
    }


def _stage(result: StageResult) -> dict[str, Any]:
    return {
        'queries': result.queries,
        'queries_judged_with_revisit': result.judged_with_revisit,
        'auc': number(result.auc),
        'recall_at_100_precision': _interval(result.recall_at_100_precision),
        'recommended_threshold': {p: _interval(i) for p, i in result.recommended.items()},
        'false_alarm_rate': {p: number(v) for p, v in result.false_alarm_rate.items()},
        'pr_curve': _curve(result.curve),
    }


def pose_error_summary(errors: tuple[PoseError, ...]) -> dict[str, Any]:
    """Return medians, 95th percentiles and the mean NEES of METRIC closures; null where none."""

    def stats(values: list[float]) -> dict[str, Optional[float]]:
        finite = [v for v in values if math.isfinite(v)]
        if not finite:
            return {'p50': None, 'p95': None}
        return {f'p{q}': float(np.percentile(finite, q)) for q in (50, 95)}

    nees = [e.nees for e in errors if math.isfinite(e.nees)]
    shares = [e.translation_m / e.distance_m for e in errors if e.distance_m > 0.0]
    return {
        'count': len(errors),
        'translation_m': stats([e.translation_m for e in errors]),
        'translation_share_of_distance': stats(shares),
        'rotation_deg': stats([e.rotation_deg for e in errors]),
        'nees_mean': float(np.mean(nees)) if nees else None,
        'nees_median': float(np.median(nees)) if nees else None,
        'nees_dimension': 6,
    }


def _percentiles(values: list[float]) -> dict[str, Optional[float]]:
    if not values:
        return {'p50': None, 'p95': None, 'p99': None}
    return {f'p{q}': round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


def closures_csv(evaluation: Evaluation) -> str:
    """Return one row for each closure, without anything that differs between runs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['query_id', 'match_id', 'query_stamp_ns', 'match_stamp_ns', 'query_frame', 'match_frame',
         'similarity', 'margin', 'normalised', 'probability', 'consistency', 'rank', 'status',
         'reject_reason', 'transform_kind', 'num_matches', 'num_inliers', 'verification_score',
         'tx', 'ty', 'tz', 'qx', 'qy', 'qz', 'qw', 'label']
    )  # fmt: skip
    replay, judgement = evaluation.replay, evaluation.judgement
    index_of = replay.index_of
    for position, c in enumerate(replay.closures):
        label = ''
        if judgement is not None:
            label = LABEL_NAMES[int(judgement.closure_labels[position])]
        frames = [
            replay.frame_indices[index_of[k.id]] if k.id in index_of else ''
            for k in (c.query, c.match)
        ]
        pose = [''] * 7 if c.T_match_query is None else _pose_fields(c.T_match_query)
        writer.writerow(
            [c.query.id, c.match.id, c.query.stamp_ns, c.match.stamp_ns, *frames,
             f'{c.similarity:.6f}', *(_text(v) for v in (c.margin, c.normalised, c.probability)),
             c.consistency, c.rank, c.status.name, c.reject_reason.name, c.transform_kind.name,
             c.num_matches, c.num_inliers, _text(c.verification_score), *pose, label]
        )  # fmt: skip
    return out.getvalue()


def trajectory_tum(evaluation: Evaluation) -> str:
    """Return the keyframes' poses as TUM rows: the odometry, or the true poses without it."""
    replay, judgement = evaluation.replay, evaluation.judgement
    rows = [
        (k.stamp_ns, k.T_odom_base) for k in replay.keyframes if k.T_odom_base is not None
    ]
    header = '# stamp_s tx ty tz qx qy qz qw: T_odom_base of each keyframe\n'
    if not rows and evaluation.ground_truth.poses is not None and judgement is not None:
        track = evaluation.ground_truth.poses
        poses, known = track.at(replay.stamps_ns)
        kept = zip(replay.stamps_ns, poses, known, strict=True)
        rows = [(stamp, pose) for stamp, pose, is_known in kept if is_known]
        header = (
            f'# stamp_s tx ty tz qx qy qz qw: true T_world_{track.frame} of each keyframe '
            '(the source has no odometry)\n'
        )
    if not rows:
        return '# the source has neither odometry nor true poses\n'
    return header + ''.join(tum_row(stamp_ns, pose) for stamp_ns, pose in rows)


def _pose_fields(T: FloatArray) -> list[str]:
    xyz, quat_xyzw = xyz_quat_from_pose(T)
    return [f'{value:.9g}' for value in (*xyz, *quat_xyzw)]


def _text(value: float) -> str:
    return '' if math.isnan(value) else f'{value:.6f}'
