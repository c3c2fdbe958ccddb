# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a replay and its ground truth to every figure of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import logging
import math
from typing import Optional

import numpy as np

from netvlad_ros.evaluation.closures import (
    PoseError,
    label_closures,
    metric_pose_errors,
)
from netvlad_ros.evaluation.metrics import (
    NO_MATCH,
    RECALL_AT,
    Decisions,
    Interval,
    PrCurve,
    StageResult,
    recall_at,
    recall_at_1,
    top_k_precision_recall,
)
from netvlad_ros.evaluation.protocol import Protocol
from netvlad_ros.evaluation.ranking import Ranking, rank
from netvlad_ros.evaluation.replay import Replay
from netvlad_ros.evaluation.thresholds import bootstrap, judge
from netvlad_ros.evaluation.truth import (
    NEITHER,
    RIGHT,
    WRONG,
    BoolArray,
    GroundTruth,
    Int8Array,
    Int64Array,
    Truth,
    truth_of_keyframes,
)
from netvlad_ros.types import ClosureStatus, FloatArray, LoopClosure

_log = logging.getLogger(__name__)

RETRIEVAL, CONSISTENCY, GEOMETRY = 'retrieval', 'consistency', 'geometry'


@dataclass(frozen=True)
class Judgement:
    """What ground truth says of a replay; rows are keyframes, Q of them are queries.

    :param queries: (Q,) indices of keyframes that have an allowed older keyframe.
    :param closure_labels: RIGHT, WRONG or NEITHER of each closure of the replay.
    :param decisions: of each stage, over the queries.
    :param declared: index of the match each stage declared for each query, NO_MATCH if none.
    """

    truth: Truth
    queries: Int64Array
    has_revisit: BoolArray
    ranking: Ranking
    closure_labels: Int8Array
    decisions: Mapping[str, Decisions]
    declared: Mapping[str, Int64Array]
    stages: Mapping[str, StageResult]
    recall_at: Mapping[str, float]
    recall_at_1: Interval
    top_k: Mapping[str, PrCurve]
    pose_errors: tuple[PoseError, ...]


@dataclass(frozen=True)
class Evaluation:
    """One recording, run and judged.

    :param judgement: None where the recording has no ground truth.
    :param topics: those read of a bag, by what they are for.
    :param baselines: decisions of other systems on the same frames, by name.
    """

    name: str
    source: str
    replay: Replay
    protocol: Protocol
    ground_truth: GroundTruth
    judgement: Optional[Judgement]
    topics: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, StageResult] = field(default_factory=dict)


def evaluate(
    name: str,
    source: str,
    replay: Replay,
    ground_truth: GroundTruth,
    protocol: Protocol,
    T_base_camera: Optional[FloatArray] = None,
) -> Evaluation:
    """Judge a replay."""
    exclude_s = replay.config.search.exclude_s
    truth = truth_of_keyframes(
        ground_truth, replay.stamps_ns, protocol, exclude_s, T_base_camera, replay.times_ns
    )
    listed = ground_truth.listed is not None
    poses = ground_truth.poses
    if truth is not None and poses is not None and replay.stamps_ns and not truth.known.any():
        _log.warning(
            '%s: no keyframe has a true pose: the poses are of %s, the keyframes of %s',
            name, _span(poses.stamps_ns.tolist()), _span(replay.stamps_ns),
        )  # fmt: skip
    judgement = None if truth is None else _judge(replay, truth, listed)
    return Evaluation(name, source, replay, protocol, ground_truth, judgement)


def _span(stamps_ns: Sequence[int]) -> str:
    """Return from when to when rising stamps go."""
    return f'{stamps_ns[0] / 1e9:.3f} to {stamps_ns[-1] / 1e9:.3f} s'


def _judge(replay: Replay, truth: Truth, listed: bool) -> Judgement:
    """Return the judgement.

    :param listed: revisits are listed by frame: a query needs no pose.
    """
    index_of = replay.index_of
    returned = [
        [(index_of[c.keyframe_id], c.similarity) for c in row if c.keyframe_id in index_of]
        for row in replay.candidates
    ]
    ranking = rank(replay.descriptors, truth, returned, max(RECALL_AT))
    is_query = ranking.has_older if listed else ranking.has_older & truth.known
    queries = np.flatnonzero(is_query).astype(np.int64)
    scores, labels = ranking.scores[queries], ranking.labels[queries]
    has_revisit = ranking.best_right[queries] != NO_MATCH
    closure_labels = label_closures(replay.closures, truth, index_of)
    decisions = {
        RETRIEVAL: Decisions(scores[:, 0], labels[:, 0], has_revisit),
    }
    declared = {RETRIEVAL: ranking.matches[queries, 0]}
    for stage, accepted in _accepted_by_stage(replay).items():
        decisions[stage], declared[stage] = _closure_decisions(
            replay, accepted, closure_labels, truth, queries, has_revisit, stage
        )
    return Judgement(
        truth=truth,
        queries=queries,
        has_revisit=has_revisit,
        ranking=ranking,
        closure_labels=closure_labels,
        decisions=decisions,
        declared=declared,
        stages={stage: judge(made) for stage, made in decisions.items()},
        recall_at=recall_at(labels, has_revisit),
        recall_at_1=bootstrap(decisions[RETRIEVAL], recall_at_1),
        top_k={
            str(k): top_k_precision_recall(labels, scores, has_revisit, k)
            for k in RECALL_AT
        },
        pose_errors=tuple(metric_pose_errors(replay.closures, truth, index_of)),
    )


def _accepted_by_stage(replay: Replay) -> dict[str, list[int]]:
    """Return the positions of the closures that passed each stage; none if a stage is off."""
    out: dict[str, list[int]] = {}
    support = replay.config.consistency.min_support
    if any(c.consistency > 1 for c in replay.closures):
        out[CONSISTENCY] = [i for i, c in enumerate(replay.closures) if c.consistency >= support]
    if replay.config.verification.enabled:
        out[GEOMETRY] = [
            i for i, c in enumerate(replay.closures) if c.status is ClosureStatus.VERIFIED
        ]
    return out


def stage_score(closure: LoopClosure, stage: str) -> float:
    """Return how sure a stage is: the geometric score after geometry, similarity before."""
    if stage == GEOMETRY:
        return 0.0 if math.isnan(closure.verification_score) else closure.verification_score
    return closure.similarity


def _closure_decisions(
    replay: Replay,
    accepted: list[int],
    closure_labels: Int8Array,
    truth: Truth,
    queries: Int64Array,
    has_revisit: BoolArray,
    stage: str,
) -> tuple[Decisions, Int64Array]:
    """Return the surest accepted closure of each query as its decision.

    Closures that the truth masks are left out, as in retrieval.
    """
    index_of = replay.index_of
    best: dict[int, int] = {}
    for position in accepted:
        closure = replay.closures[position]
        query, match = index_of.get(closure.query.id), index_of.get(closure.match.id)
        if query is None or match is None:
            continue
        if not truth.allowed(np.asarray(query), np.asarray(match)):
            continue
        score = stage_score(closure, stage)
        held = best.get(query)
        if held is None or score > stage_score(replay.closures[held], stage):
            best[query] = position
    scores = np.full(len(queries), -np.inf)
    labels = np.full(len(queries), WRONG, dtype=np.int8)
    declared = np.full(len(queries), NO_MATCH, dtype=np.int64)
    for row, query in enumerate(queries):
        position = best.get(int(query), -1)
        if position >= 0:
            closure = replay.closures[position]
            scores[row] = stage_score(closure, stage)
            labels[row] = closure_labels[position]
            declared[row] = index_of[closure.match.id]
    return Decisions(scores, labels, has_revisit), declared


def acting_threshold(evaluation: Evaluation, stage: str) -> float:
    """Return the least score of a stage's decisions that counts as a closure.

    Where the thresholds of the run were open, it is the one learnt for full precision; else what
    the stage accepted counts.
    """
    judgement = evaluation.judgement
    assert judgement is not None
    if stage == RETRIEVAL or evaluation.replay.thresholds_open:
        learnt = judgement.stages[stage].recommended['1.0'].value
        return math.inf if math.isnan(learnt) else learnt
    return -math.inf


def candidate_precision(replay: Replay, truth: Truth, threshold: float) -> tuple[float, int]:
    """Return the precision of all candidates that reach a similarity, and how many are judged.

    ``search.min_similarity`` acts on every candidate of a query; a threshold learnt on the best
    match of each says nothing of the others. NaN where none is judged.
    """
    index_of = replay.index_of
    pairs = [
        (query, index_of[c.keyframe_id])
        for query, row in enumerate(replay.candidates)
        for c in row
        if c.similarity >= threshold and c.keyframe_id in index_of
    ]
    queries, matches = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    labels = truth.labels(queries, matches)[truth.allowed(queries, matches)]
    right, judged = int((labels == RIGHT).sum()), int((labels != NEITHER).sum())
    return (right / judged if judged else math.nan), judged


def verified_precision_recall(evaluation: Evaluation) -> tuple[Optional[float], Optional[float]]:
    """Return precision of all VERIFIED closures, and recall of queries with a revisit by them.

    None where geometry is off, or nothing is known, or no query has a revisit; precision also
    where nothing was verified (0/0).
    """
    judgement, replay = evaluation.judgement, evaluation.replay
    if judgement is None or GEOMETRY not in judgement.decisions:
        return None, None
    verified = [c.status is ClosureStatus.VERIFIED for c in replay.closures]
    labels = judgement.closure_labels[np.asarray(verified, dtype=np.bool_)]
    judged = int((labels != NEITHER).sum())
    precision = int((labels == RIGHT).sum()) / judged if judged else None
    decisions = judgement.decisions[GEOMETRY]
    counted = decisions.judged & decisions.has_revisit
    if not counted.any():
        return precision, None
    return precision, float((decisions.labels[counted] == RIGHT).mean())
