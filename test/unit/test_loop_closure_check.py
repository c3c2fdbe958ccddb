# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which answers of geometry are published, from a map that keeps thumbnails."""

from collections.abc import Iterator
from dataclasses import replace
import math
from pathlib import Path
import sys
from typing import cast

import numpy as np
import pytest

from netvlad_ros.config import DetectorConfig, VerificationConfig, from_dict
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure import closure_check
from netvlad_ros.loop_closure.closure_check import ClosureCheck
from netvlad_ros.loop_closure.detector import LoopClosureDetector
from netvlad_ros.loop_closure.geometry.features import make_extractor
from netvlad_ros.loop_closure.view_store import ViewStore, decode_thumbnail, encode_thumbnail
from netvlad_ros.types import (
    NOT_STORED,
    ClosureStatus,
    FloatArray,
    Frame,
    Keyframe,
    LoopClosure,
    TransformKind,
)

sys.path.insert(0, str(Path(__file__).parent))
from test_loop_verification import CAMERA, QUERY, at, render

CONFIG = VerificationConfig(time_budget_s=60.0)
NEAR = [at(x, 0.0, 0.0) for x in (-0.4, 0.0, 0.4)]
TWIN = 3


def frame(stamp_s: int, T_odom_base: FloatArray) -> Frame:
    image_rgb = render(T_odom_base).image_rgb
    assert image_rgb is not None
    return Frame(stamp_s * 10**9, image_rgb, CAMERA, T_odom_base)


def store(keyframe_map: KeyframeMap, taken: Frame) -> Keyframe:
    thumbnail = encode_thumbnail(taken.image_rgb, 400)
    descriptor = np.eye(1, 8, dtype=np.float32)[0]
    return keyframe_map.add(taken, descriptor, None, thumbnail)[0]


@pytest.fixture
def street() -> Iterator[KeyframeMap]:
    """Yield a map of three views of a wall and, elsewhere, of a wall just like the query's."""
    with KeyframeMap.open(None, 'm@1', 8) as keyframe_map:
        keyframe_map.begin_session('')
        for stamp_s, T in enumerate([*NEAR, QUERY]):
            store(keyframe_map, frame(stamp_s, T))
        yield keyframe_map


def test_a_twin_that_odometry_denies_does_not_take_the_pose_of_the_best(street, monkeypatch):
    monkeypatch.setattr(closure_check, 'CERTAIN_SCORE', math.inf)
    query = frame(60, QUERY)
    keyframe = store(street, query)
    closures = [
        LoopClosure(keyframe, street.keyframe(id_), 0.9, 'm@1') for id_ in (TWIN, 1)
    ]
    check = ClosureCheck(street, lambda ids: [street.keyframe(i) for i in ids], CONFIG)
    answers = check.judged(keyframe, query, closures, {1}, lambda match: match.id != TWIN)
    assert [(a.match.id, a.status) for a in answers] == [(1, ClosureStatus.VERIFIED)]
    assert answers[0].transform_kind is TransformKind.METRIC
    # What retrieval did not publish stays unpublished beside an impossible match as strong.
    assert not check.judged(keyframe, query, closures, set(), lambda match: match.id != TWIN)
    both = check.judged(keyframe, query, closures, {1}, lambda match: True)
    assert [a.match.id for a in both] == [TWIN, 1]


def test_what_was_not_published_is_not_taken_back(street, monkeypatch):
    query = frame(60, QUERY)
    keyframe = store(street, query)
    closures = [LoopClosure(keyframe, street.keyframe(id_), 0.9, 'm@1') for id_ in (0, 1)]
    check = ClosureCheck(street, lambda ids: [street.keyframe(i) for i in ids], CONFIG)
    monkeypatch.setattr(
        check._agreement, 'judged',
        lambda answers: [replace(a, status=ClosureStatus.REJECTED) for a in answers],
    )
    assert check.judged(keyframe, query, closures, set(), lambda match: True) == []
    answers = check.judged(keyframe, query, closures, {1}, lambda match: True)
    assert [answer.match.id for answer in answers] == [1]


def test_a_calibration_of_unknown_size_is_of_the_image_and_of_no_thumbnail(street):
    nameless = replace(CAMERA, name='other', size_wh=(0, 0))
    taken = replace(frame(60, QUERY), camera=nameless)
    views = ViewStore(street, make_extractor(CONFIG), CONFIG)
    assert views.get(store(street, taken)).camera.K is None
    config = from_dict(DetectorConfig, {'keyframes': {'policy': 'every_frame'}})
    detector = LoopClosureDetector(cast(Descriptor, Alike()), street, config)
    detection = detector.process(replace(taken, stamp_ns=taken.stamp_ns + 10**9))
    assert street.camera(detection.keyframe.id).size_wh == (400, 300)


def test_standing_still_is_no_further_evidence(street):
    config = from_dict(DetectorConfig, {
        'keyframes': {'policy': 'every_frame'}, 'verification': {'enabled': False},
    })  # fmt: skip
    detector = LoopClosureDetector(cast(Descriptor, Alike()), street, config)
    # Where the robot saw the first match it stays for a while.
    stays = [detector.process(frame(60 + second, at(0.0, 0.0, 0.0))) for second in range(8)]
    assert [len(detection.closures) > 0 for detection in stays] == [True] + 7 * [False]
    [closure, *_] = detector.process(frame(70, at(0.3, 0.0, 0.0))).closures
    assert closure.consistency == 2


class Alike:
    """A descriptor by which all images look alike."""

    model_id, dim, recommended_min_similarity = 'm@1', 8, None

    def compute(self, images):
        """Return (N, 8) equal unit rows."""
        return np.repeat(np.eye(1, 8, dtype=np.float32), len(images), axis=0)


def test_the_view_of_a_query_that_is_not_stored_outlives_its_own_check(street):
    config = VerificationConfig(views_in_memory=20)
    views = ViewStore(street, make_extractor(config), config)
    query = frame(60, QUERY)
    views.add(NOT_STORED, query)
    for number in range(config.views_in_memory - 1):
        views.add(1000 + number, query)
    views.add(NOT_STORED, query)
    views.get(street.keyframe(0))
    unknown = Keyframe(NOT_STORED, query.stamp_ns, 's', 'c', 0)
    assert views.get(unknown).local(make_extractor(config)) is not None


def test_a_damaged_thumbnail_is_no_image():
    jpeg = encode_thumbnail(frame(0, QUERY).image_rgb, 100)
    assert jpeg is not None and decode_thumbnail(jpeg) is not None
    assert decode_thumbnail(jpeg[:2] + bytes(50)) is None
    assert decode_thumbnail(b'') is None
