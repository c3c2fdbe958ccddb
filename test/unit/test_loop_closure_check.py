# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which answers of geometry are published, from a map that keeps thumbnails."""

from collections.abc import Iterator
import math
from pathlib import Path
import sys

import numpy as np
import pytest

from netvlad_ros.config import VerificationConfig
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure import closure_check
from netvlad_ros.loop_closure.closure_check import ClosureCheck
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
