# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores, calibration, sequence support, standing still and the odometry gate."""

from dataclasses import dataclass, replace
import json
import math

import numpy as np
import pytest

from netvlad_ros.config import ConsistencyConfig
from netvlad_ros.errors import InputError, ModelError
from netvlad_ros.loop_closure.calibration import Calibration, load_calibration
from netvlad_ros.loop_closure.consistency import SequenceConsistency
from netvlad_ros.loop_closure.odometry_gate import OdometryGate
from netvlad_ros.loop_closure.scores import score
from netvlad_ros.loop_closure.stationary import StationaryFilter
from netvlad_ros.types import Candidate, Keyframe, LoopClosure


@dataclass(frozen=True)
class Row:
    """One search result."""

    keyframe_id: int
    similarity: float


def keyframe(id_: int, session: str = 'a', x_m: float | None = None) -> Keyframe:
    pose = None
    if x_m is not None:
        pose = np.eye(4)
        pose[0, 3] = x_m
    return Keyframe(id_, id_ * 10**9, session, 'front', 0, pose)


def turned(angle_deg: float) -> np.ndarray:
    angle, pose = math.radians(angle_deg), np.eye(4)
    pose[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return pose


def test_margin_is_against_the_best_elsewhere():
    rows = [Row(10, 0.9), Row(12, 0.85), Row(50, 0.7), Row(11, 0.6)]
    found = score(rows, keyframe, ConsistencyConfig(), reference_similarity=0.95, keep=3)
    assert [c.keyframe_id for c in found] == [10, 12, 50]
    assert [c.rank for c in found] == [0, 1, 2]
    assert found[0].margin == pytest.approx(0.2)
    assert found[1].margin == pytest.approx(0.15)
    assert found[2].margin == pytest.approx(-0.2), 'a rival elsewhere is better'
    assert found[0].normalised == pytest.approx(0.05 / 0.1)


def test_margin_is_nan_when_every_result_is_of_one_place_or_there_is_no_reference():
    found = score([Row(10, 0.9), Row(11, 0.8)], keyframe, ConsistencyConfig())
    assert math.isnan(found[0].margin)
    assert math.isnan(found[0].normalised)


def test_odometry_and_sessions_bound_a_neighbourhood():
    config = ConsistencyConfig(neighbourhood_keyframes=1, neighbourhood_m=3.0)
    known = {1: keyframe(1, x_m=0.0), 90: keyframe(90, x_m=2.0), 2: keyframe(2, session='b')}
    found = score([Row(1, 0.9), Row(90, 0.8), Row(2, 0.7)], known.__getitem__, config)
    assert found[0].margin == pytest.approx(0.2), '90 is 2 m away, 2 is of another session'


def supports(consistency: SequenceConsistency, ids: list[int | None]) -> list[int]:
    out = []
    for id_ in ids:
        candidates = [] if id_ is None else [Candidate(id_, 0.9)]
        out.extend(consistency.update(candidates, keyframe))
    return out


@pytest.mark.parametrize(
    ('ids', 'expected'),
    [
        ([10, 12, 14, 17], [1, 2, 3, 4]),
        ([40, 38, 35, 33], [1, 2, 3, 4]),
        ([10, 11, 10, 11, 10], [1, 2, 3, 4, 5]),
        ([10, 60, 11, 90], [1, 1, 2, 1]),
        ([10, 14, 18, 14, 10], [1, 2, 3, 1, 2]),
        ([10, None, 12], [1, 2]),
        ([10, None, None, 12], [1, 1]),
    ],
    ids=['forward', 'reverse', 'jitter', 'jumps', 'turns-back', 'one-miss', 'two-misses'],
)
def test_support_counts_coherent_walks(ids, expected):
    assert supports(SequenceConsistency(ConsistencyConfig()), ids) == expected


def test_support_is_of_one_session_and_reset_forgets():
    consistency = SequenceConsistency(ConsistencyConfig())
    other = {10: keyframe(10), 11: keyframe(11, session='b')}
    assert consistency.update([Candidate(10, 0.9)], other.__getitem__) == [1]
    assert consistency.update([Candidate(11, 0.9)], other.__getitem__) == [1]
    assert supports(consistency, [10, 11]) == [2, 3]
    consistency.reset()
    assert supports(consistency, [12]) == [1]


def test_standing_still_gives_one_closure():
    stationary = StationaryFilter(ConsistencyConfig())
    assert stationary.passes(np.eye(4))
    stationary.closed(np.eye(4))
    assert not stationary.passes(turned(5.0))
    assert stationary.passes(turned(15.0))
    moved = np.eye(4)
    moved[0, 3] = 0.3
    assert stationary.passes(moved)
    assert stationary.passes(None), 'without odometry nothing is held back'
    stationary.reset()
    assert stationary.passes(np.eye(4))


def test_gate_grows_with_distance_and_ends_at_a_kidnap():
    gate = OdometryGate(ConsistencyConfig(gate_drift=0.1, gate_base_m=1.0))
    path = [keyframe(i, x_m=float(x)) for i, x in enumerate([0, 10, 20, 30, 20, 10, 5])]
    for item in path:
        gate.add(item)
    assert gate.allows(path[6], path[0]), '5 m apart after 55 m: 1 + 5.5 m allowed'
    assert not gate.allows(path[6], replace(path[1], id=3)), (
        'keyframe 3 was reached 25 m before: 1 + 2.5 m allowed, 5 m asked'
    )
    assert not gate.allows(path[3], path[0])
    assert gate.allows(path[3], keyframe(99, session='b', x_m=500.0)), 'off across sessions'
    gate.reset()
    gate.add(keyframe(7, x_m=400.0))
    assert gate.allows(keyframe(7, x_m=400.0), path[0]), 'off after a kidnap'
    assert OdometryGate(ConsistencyConfig()).allows(path[3], path[0]), 'off by default'


def closure(**changes: object) -> LoopClosure:
    return replace(LoopClosure(keyframe(9), keyframe(1), 0.8, 'm@1'), **changes)


@pytest.mark.parametrize(
    ('calibration', 'expected'),
    [
        (Calibration('m@1', points=((0.6, 0.0), (0.7, 0.5), (0.9, 1.0))), 0.75),
        (Calibration('m@1', kind='logistic', slope=10.0, intercept=-8.0), 0.5),
        (Calibration('m@1', score='margin', points=((0.0, 0.1),)), math.nan),
    ],
    ids=['isotonic', 'logistic', 'score-unknown'],
)
def test_probability_survives_the_file(tmp_path, calibration, expected):
    path = tmp_path / 'calibration.json'
    calibration.save(path)
    loaded = load_calibration(path, 'm@1')
    assert loaded == calibration
    probability = loaded.apply(closure()).probability
    assert probability == pytest.approx(expected, nan_ok=True)


def test_calibration_refuses_another_model_and_damage(tmp_path):
    path = tmp_path / 'calibration.json'
    Calibration('m@1', points=((0.6, 0.1), (0.9, 1.0))).save(path)
    with pytest.raises(ModelError, match='m@2'):
        load_calibration(path, 'm@2')
    document = json.loads(path.read_text())
    for damage in (
        {'format_version': 2}, {'points': [[0.9, 1.0], [0.6, 0.1]]}, {'points': []},
        {'kind': 'spline'}, {'score': 'luck'}, {'points': [[0.6, float('nan')]]},
        {'points': [[0.6, 1.5]]},
    ):  # fmt: skip
        path.write_text(json.dumps({**document, **damage}))
        with pytest.raises(InputError):
            load_calibration(path, 'm@1')
    path.write_text('{')
    with pytest.raises(InputError, match='not a calibration'):
        load_calibration(path, 'm@1')
