# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics on five keyframes that a reader can work out by hand.

Keyframes 0..4 are taken every 10 s at x = 0, 10, 20, 0, 10 m; pairs under 20 s are masked. So
2, 3 and 4 are queries, 3 revisits 0, and 4 revisits 1. The best match of 2 is 0 (wrong, 0.6), of
3 is 0 (right, 0.9), and of 4 is 2 (wrong, 0.7) before 1 (right, 0.55).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from netvlad_ros.evaluation import ranking
from netvlad_ros.evaluation.evaluation import candidate_precision
from netvlad_ros.evaluation.metrics import (
    NO_MATCH,
    Decisions,
    area_under,
    at_threshold,
    false_alarm_rate,
    labels_of,
    precision_recall,
    rank_matches,
    recall_at,
    recall_at_precision,
    threshold_for_precision,
    top_k_precision_recall,
)
from netvlad_ros.evaluation.protocol import Protocol
from netvlad_ros.evaluation.several import leave_one_out
from netvlad_ros.evaluation.thresholds import bootstrap, judge, segments_of
from netvlad_ros.evaluation.truth import (
    NEITHER,
    RIGHT,
    WRONG,
    GroundTruth,
    PoseTrack,
    Truth,
    truth_of_keyframes,
)

S = 1_000_000_000
STAMPS_NS = [0, 10 * S, 20 * S, 30 * S, 40 * S]
QUERIES = np.asarray([2, 3, 4])
HAS_REVISIT = np.asarray([False, True, True])
ALL = np.ix_(range(5), range(5))


def poses_at(xs: list[float], yaws_deg: list[float]) -> np.ndarray:
    out = np.tile(np.eye(4), (len(xs), 1, 1))
    for T, x, yaw_deg in zip(out, xs, yaws_deg, strict=True):
        c, s = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
        T[:2, :2] = [[c, -s], [s, c]]
        T[0, 3] = x
    return out


def truth_for(xs: list[float], yaws_deg: list[float], protocol: Protocol) -> Truth:
    track = PoseTrack(np.asarray(STAMPS_NS), poses_at(xs, yaws_deg), frame='base')
    truth = truth_of_keyframes(GroundTruth(poses=track), STAMPS_NS, protocol, exclude_s=20.0)
    assert truth is not None
    return truth


@pytest.fixture()
def truth() -> Truth:
    return truth_for([0, 10, 20, 0, 10], [0] * 5, Protocol(gt_radius_m=1.0, gt_gap_s=20.0))


@pytest.fixture()
def similarity() -> np.ndarray:
    out = np.eye(5, dtype=np.float32)
    pairs = ((2, 0, 0.6), (3, 0, 0.9), (3, 1, 0.5), (4, 0, 0.3), (4, 1, 0.55), (4, 2, 0.7))
    for query, match, value in pairs:
        out[query, match] = out[match, query] = value
    out[3, 2] = out[2, 3] = 0.99  # masked: ten seconds apart
    return out


@pytest.fixture()
def decisions() -> Decisions:
    labels = np.asarray([WRONG, RIGHT, WRONG], dtype=np.int8)
    return Decisions(np.asarray([0.6, 0.9, 0.7]), labels, HAS_REVISIT)


def test_the_mask_is_the_same_for_truth_and_score(truth: Truth, similarity: np.ndarray) -> None:
    assert np.flatnonzero(truth.allowed(*ALL).any(axis=1)).tolist() == [2, 3, 4]
    columns, scores = rank_matches(similarity, truth.allowed(*ALL), [[]] * 5, 3)
    assert columns[2].tolist() == [0, NO_MATCH, NO_MATCH]
    assert columns[3].tolist() == [0, 1, NO_MATCH]
    assert columns[4].tolist() == [2, 1, 0]
    assert scores[4].tolist() == pytest.approx([0.7, 0.55, 0.3])


def test_what_the_detector_returned_goes_before_the_matrix(
    truth: Truth, similarity: np.ndarray
) -> None:
    returned = [[], [], [], [(2, 0.99), (1, 0.5)], [(1, 0.55)]]
    columns, _ = rank_matches(similarity, truth.allowed(*ALL), returned, 2)
    assert columns[3].tolist() == [1, 0], 'the masked pair is left out'
    assert columns[4].tolist() == [1, 2]


def test_blocks_of_any_size_rank_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    # Halves are exact in any order of a sum; every descriptor has equals.
    rng = np.random.default_rng(0)
    descriptors = rng.choice([-0.5, 0.5], (40, 4)).astype(np.float32)
    track = PoseTrack(np.arange(40) * S, poses_at(rng.integers(0, 9, 40), [0] * 40), frame='base')
    stamps_ns = track.stamps_ns.tolist()
    truth = truth_of_keyframes(GroundTruth(poses=track), stamps_ns, Protocol(gt_gap_s=5.0), 5.0)
    assert truth is not None
    returned = [[(row // 2, 0.9)] if row % 3 else [] for row in range(40)]
    rankings = []
    for rows in (1, 7, 40):
        monkeypatch.setattr(ranking, 'ROWS_PER_BLOCK', rows)
        rankings.append(ranking.rank(descriptors, truth, returned, 10))
    for other in rankings[1:]:
        for name, values in vars(rankings[0]).items():
            np.testing.assert_array_equal(values, getattr(other, name))
    every = np.ix_(range(40), range(40))
    right = truth.allowed(*every) & (truth.labels(*every) == RIGHT)
    similarity = np.where(right, descriptors @ descriptors.T, -np.inf)
    np.testing.assert_array_equal(rankings[0].best_right_similarity, similarity.max(axis=1))
    assert (rankings[0].best_right >= 0).tolist() == right.any(axis=1).tolist()


def test_recall_at_n(truth: Truth, similarity: np.ndarray) -> None:
    columns, _ = rank_matches(similarity, truth.allowed(*ALL), [[]] * 5, 10)
    labels = labels_of(truth.labels(*ALL), columns)[QUERIES]
    assert recall_at(labels, HAS_REVISIT) == {'1': 0.5, '5': 1.0, '10': 1.0}


def test_curve_area_and_thresholds(decisions: Decisions) -> None:
    curve = precision_recall(decisions)
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.6]
    assert curve.precision.tolist() == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert curve.recall.tolist() == [0.5, 0.5, 0.5]
    assert area_under(curve) == 0.5
    assert recall_at_precision(curve, 1.0) == 0.5
    assert threshold_for_precision(curve, 1.0) == pytest.approx(0.8)
    assert at_threshold(decisions, 0.7) == (0.5, 0.5)
    assert false_alarm_rate(decisions, 0.8) == 0.0
    assert false_alarm_rate(decisions, 0.6) == 1.0


def test_top_k_declares_every_pair_over_the_threshold(
    truth: Truth, similarity: np.ndarray
) -> None:
    columns, scores = rank_matches(similarity, truth.allowed(*ALL), [[]] * 5, 10)
    labels = labels_of(truth.labels(*ALL), columns)[QUERIES]
    curve = top_k_precision_recall(labels, scores[QUERIES], HAS_REVISIT, 5)
    at = curve.thresholds.tolist().index(pytest.approx(0.55, abs=1e-6))
    assert curve.precision[at] == 0.5 and curve.recall[at] == 1.0


def test_zero_over_zero() -> None:
    nothing = Decisions(
        np.asarray([-np.inf, -np.inf]), np.asarray([WRONG, WRONG], np.int8), np.asarray([0, 0]) > 0
    )
    curve = precision_recall(nothing)
    assert len(curve.thresholds) == 0
    assert at_threshold(nothing, 0.5)[0] == 1.0 and math.isnan(at_threshold(nothing, 0.5)[1])
    assert math.isnan(threshold_for_precision(curve, 1.0))
    assert math.isnan(recall_at(np.zeros((2, 10), np.int8), nothing.has_revisit)['1'])
    assert math.isnan(area_under(curve)) and math.isnan(recall_at_precision(curve, 1.0))
    assert math.isnan(judge(nothing).recall_at_100_precision.value)
    everywhere = Decisions(nothing.scores, nothing.labels, np.asarray([True, True]))
    assert math.isnan(false_alarm_rate(everywhere, 0.0))
    assert recall_at_precision(precision_recall(everywhere), 1.0) == 0.0
    assert area_under(precision_recall(everywhere)) == 0.0


def test_a_match_that_is_neither_right_nor_wrong_is_not_judged(decisions: Decisions) -> None:
    labels = decisions.labels.copy()
    labels[2] = NEITHER
    curve = precision_recall(Decisions(decisions.scores, labels, HAS_REVISIT))
    assert curve.thresholds.tolist() == [0.9, 0.6]
    assert curve.recall.tolist() == [1.0, 1.0]


def test_equal_scores_pass_together(decisions: Decisions) -> None:
    curve = precision_recall(Decisions(np.full(3, 0.7), decisions.labels, HAS_REVISIT))
    assert curve.thresholds.tolist() == [0.7]
    assert curve.precision[0] == pytest.approx(1 / 3)


def test_angle_and_distance_bands_of_the_truth() -> None:
    protocol = Protocol(gt_radius_m=2.0, gt_angle_deg=20.0, gt_gap_s=0.0,
                        gt_ignore_radius_m=4.0, gt_ignore_angle_deg=45.0)  # fmt: skip
    labels = truth_for([0, 2.0, 3.0, 4.5, 1.0], [0, 20, 0, 0, 30], protocol).labels(*ALL)
    assert labels[1, 0] == RIGHT
    assert labels[2, 0] == NEITHER, 'between the radii'
    assert labels[3, 0] == WRONG
    assert labels[4, 0] == NEITHER, 'between the angles'
    far_turned = truth_for([0, 0, 0, 0, 0], [0, 46, 0, 0, 0], protocol).labels(*ALL)
    assert far_turned[1, 0] == WRONG


def test_the_bootstrap_keeps_neighbours_together_and_repeats_itself(decisions: Decisions) -> None:
    runs = segments_of(103)
    assert [len(r) for r in runs] == [11, 11, 11, 10, 10, 10, 10, 10, 10, 10]
    assert np.concatenate(runs).tolist() == list(range(103))
    first = bootstrap(decisions, lambda d: recall_at_precision(precision_recall(d), 1.0))
    again = bootstrap(decisions, lambda d: recall_at_precision(precision_recall(d), 1.0))
    assert first == again and first.low <= first.value <= first.high
    assert judge(decisions).recommended['1.0'].value == pytest.approx(0.8)


def test_the_precision_of_all_candidates_at_a_threshold(truth: Truth) -> None:
    rows = [[], [], [(0, 0.6)], [(0, 0.9), (1, 0.5)], [(2, 0.7), (1, 0.55), (3, 0.99)]]
    replay = SimpleNamespace(
        index_of={10 + i: i for i in range(5)},
        candidates=[
            [SimpleNamespace(keyframe_id=10 + match, similarity=score) for match, score in row]
            for row in rows
        ],
    )
    # Two right, two wrong; 3 is masked for 4. The best match of each query alone: one of two.
    assert candidate_precision(replay, truth, 0.55) == (0.5, 4)
    assert candidate_precision(replay, truth, 0.8) == (1.0, 1)
    precision, count = candidate_precision(replay, truth, 0.95)
    assert math.isnan(precision) and count == 0


def test_leave_one_out_judges_each_recording_by_a_threshold_of_the_others():
    def run(name: str, scores: list[float], labels: list[int]) -> SimpleNamespace:
        revisit = np.full(len(scores), True)
        made = Decisions(np.asarray(scores), np.asarray(labels, np.int8), revisit)
        return SimpleNamespace(name=name, judgement=SimpleNamespace(decisions={'retrieval': made}))

    runs = [
        run('a', [0.9, 0.8, 0.5], [RIGHT, WRONG, RIGHT]),
        run('b', [0.97, 0.86, 0.6], [RIGHT, WRONG, RIGHT]),
        run('c', [0.95, 0.65], [WRONG, RIGHT]),
    ]
    a, b, c = leave_one_out(runs)
    # Right above 0.95, the best mistake of the others.
    assert 0.95 < a['threshold'] <= 0.97
    # Nothing is declared, so nothing is known of its precision.
    assert (a['precision'], a['recall']) == (None, 0.0)
    # The surest match of a and c together is a mistake: nothing can be learnt.
    assert (b['threshold'], b['precision'], b['recall']) == (None, None, None)
    assert 0.86 < c['threshold'] <= 0.9
    assert (c['precision'], c['recall']) == (0.0, 0.0)
