# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Poses that put the robot in two places: the stronger one stays."""

from dataclasses import replace
import math

import numpy as np
import pytest

from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.agreement import PoseAgreement
from netvlad_ros.types import (
    ClosureStatus,
    FloatArray,
    Keyframe,
    LoopClosure,
    RejectReason,
    TransformKind,
)

FACADE_PERIOD_M = 4.5
SPACING_M = 0.5


def along(x_m: float, yaw_deg: float = 0.0) -> FloatArray:
    T, (c, s) = np.eye(4), (np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg)))
    T[:2, :2], T[0, 3] = [[c, -s], [s, c]], x_m
    return T


def keyframe(number: int, session: str = 's') -> Keyframe:
    """Return a keyframe of a street driven twice; odometry is 0.3 m long on the second lap."""
    x_m = SPACING_M * (number % 100) * (1.0 if number < 100 else 1.01)
    return Keyframe(number, number, session, 'c', 0, along(x_m + (0.3 if number >= 100 else 0.0)))


def closure(query: int, match: int, score: float, off_m: float = 0.0, **fields) -> LoopClosure:
    truth = along(SPACING_M * (query % 100 - match % 100) + off_m, fields.pop('off_deg', 0.0))
    return LoopClosure(**{
        'query': keyframe(query), 'match': keyframe(match), 'similarity': 0.7, 'model_id': 'm',
        'status': ClosureStatus.VERIFIED, 'transform_kind': TransformKind.METRIC,
        'T_match_query': truth, 'covariance': 1e-4 * np.eye(6), 'verification_score': score,
        **fields,
    })  # fmt: skip


def way_m(a: Keyframe, b: Keyframe) -> float:
    far = a.session != b.session or abs(a.id - b.id) > 50
    return math.inf if far else SPACING_M * abs(a.id - b.id)


@pytest.fixture
def agreement() -> PoseAgreement:
    return PoseAgreement(lambda k: k.T_odom_base, way_m)


def statuses(closures: list[LoopClosure]) -> list[ClosureStatus]:
    return [closure.status for closure in closures]


@pytest.mark.parametrize('wrong', [{'off_m': FACADE_PERIOD_M}, {'off_deg': 20.0}])
def test_a_weaker_match_that_says_otherwise_is_rejected(agreement, wrong):
    repeated = closure(150, 52, 35.0, **wrong)
    best, other = closure(150, 50, 90.0), closure(150, 49, 60.0, off_m=0.1)
    answers = agreement.judged([repeated, best, other])
    assert statuses(answers) == [
        ClosureStatus.REJECTED, ClosureStatus.VERIFIED, ClosureStatus.VERIFIED
    ]
    assert answers[0].reject_reason is RejectReason.IMPLAUSIBLE_ODOMETRY
    assert answers[0].T_match_query is None
    assert answers[0].transform_kind is TransformKind.NONE


def test_a_match_without_an_image_does_not_turn_the_vote_around(agreement):
    unchecked = closure(150, 90, math.nan, T_match_query=None)
    wrong, right = closure(150, 52, 30.0, off_m=FACADE_PERIOD_M), closure(150, 50, 50.0)
    answers = agreement.judged([wrong, unchecked, right])
    assert answers[0].status is ClosureStatus.REJECTED
    assert answers[2].status is ClosureStatus.VERIFIED


def test_without_a_length_the_rotation_is_compared(agreement):
    best = closure(150, 50, 90.0)
    answers = agreement.judged([best, *(
        closure(150, 51, 35.0, off_deg=deg, transform_kind=TransformKind.UP_TO_SCALE)
        for deg in (5.0, 20.0)
    )])  # fmt: skip
    assert statuses(answers[1:]) == [ClosureStatus.VERIFIED, ClosureStatus.REJECTED]


def test_the_queries_before_are_witnesses_until_a_reset(agreement):
    assert statuses(agreement.judged([closure(150, 50, 90.0)])) == [ClosureStatus.VERIFIED]
    lone = [closure(152, 52, 35.0, off_m=FACADE_PERIOD_M)]
    assert statuses(agreement.judged(lone)) == [ClosureStatus.REJECTED]
    assert statuses(agreement.judged([closure(152, 52, 35.0)])) == [ClosureStatus.VERIFIED]
    agreement.reset()
    assert statuses(agreement.judged(lone)) == [ClosureStatus.VERIFIED]


def test_a_wrong_closure_does_not_outweigh_a_much_stronger_one(agreement):
    agreement.judged([closure(150, 50, 25.0, off_m=FACADE_PERIOD_M)])
    right = [closure(q, q - 100, 90.0) for q in (151, 152)]
    assert statuses([agreement.judged([c])[0] for c in right]) == [ClosureStatus.VERIFIED] * 2


def test_the_nearest_witness_decides_for_it_is_the_most_exact(agreement):
    for query in (110, 150):
        agreement.judged([closure(query, query - 100, 90.0)])
    answers = agreement.judged([closure(151, 51, 60.0, off_m=0.9)])
    assert statuses(answers) == [ClosureStatus.REJECTED]


def test_a_robot_carried_away_is_believed_after_some_queries(agreement):
    agreement.judged([closure(150, 50, 90.0)])
    away = [closure(q, q - 80, 60.0, off_m=10.0) for q in range(151, 158)]
    after = [agreement.judged([c])[0].status for c in away]
    assert after == [ClosureStatus.REJECTED] * 4 + [ClosureStatus.VERIFIED] * 3


def test_rejections_that_disagree_stay_rejections(agreement):
    agreement.judged([closure(150, 50, 90.0)])
    away = [closure(q, q - 100, 60.0, off_m=q - 140.0) for q in range(151, 158)]
    after = [agreement.judged([c])[0].status for c in away]
    assert after == [ClosureStatus.REJECTED] * 7


def test_what_odometry_cannot_compare_is_left_alone(agreement):
    best, far = closure(190, 90, 90.0), closure(190, 10, 35.0, off_m=FACADE_PERIOD_M)
    other = replace(far, match=keyframe(89, 'another'))
    scale = closure(190, 88, 35.0, off_m=FACADE_PERIOD_M,
                    transform_kind=TransformKind.UP_TO_SCALE)  # fmt: skip
    answers = agreement.judged([best, far, other, scale])
    assert statuses(answers) == [ClosureStatus.VERIFIED] * 4
    unmounted = PoseAgreement(lambda k: None, way_m)
    assert statuses(unmounted.judged([best, closure(190, 89, 35.0, off_m=4.5)])) == [
        ClosureStatus.VERIFIED
    ] * 2


def test_odometry_may_be_off_by_some_percent(agreement):
    drifting = replace(keyframe(160), T_odom_base=along(31.5))  # 0.95 m too far after 5 m
    agreement.judged([closure(150, 50, 90.0)])
    answers = agreement.judged([replace(closure(160, 60, 60.0), query=drifting)])
    expected = inverse(keyframe(150).T_odom_base) @ drifting.T_odom_base
    assert expected[0, 3] - 10 * SPACING_M > 0.5
    assert statuses(answers) == [ClosureStatus.REJECTED]
    near = replace(keyframe(160), T_odom_base=along(30.9))
    answers = agreement.judged([replace(closure(160, 60, 60.0), query=near)])
    assert statuses(answers) == [ClosureStatus.VERIFIED]
