# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""When a frame becomes a keyframe."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from netvlad_ros.config import KeyframeConfig
from netvlad_ros.keyframes import KeyframeSelector
from netvlad_ros.types import Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(t_s: float, x_m: float | None = 0.0, yaw_deg: float = 0.0) -> Frame:
    T = None
    if x_m is not None:
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler('z', yaw_deg, degrees=True).as_matrix()
        T[0, 3] = x_m
    return Frame(round(t_s * 1e9), IMAGE, T_odom_base=T)


@pytest.mark.parametrize(
    ('second', 'is_kept'),
    [
        (frame(1.0, 0.49), False),
        (frame(1.0, 0.51), True),
        (frame(1.0, 0.0, 14.9), False),
        (frame(1.0, 0.0, -15.1), True),
        (frame(0.05, 5.0), False),  # far enough, but sooner than min_interval_s
        (frame(0.9, None), False),
        (frame(1.0, None), True),  # without odometry time decides
        (frame(0.0, 5.0), False),  # a repeated stamp
        (frame(-1.0, 5.0), False),  # a looped bag
    ],
)
def test_motion_or_time_makes_a_keyframe(second: Frame, is_kept: bool) -> None:
    selector = KeyframeSelector(KeyframeConfig())
    assert selector.accepts(frame(0.0))
    assert selector.accepts(second) is is_kept


def test_motion_counts_from_the_last_keyframe_not_from_the_last_frame() -> None:
    selector = KeyframeSelector(KeyframeConfig())
    kept = [selector.accepts(frame(i * 0.2, i * 0.2)) for i in range(7)]
    assert kept == [True, False, False, True, False, False, True]


def test_every_frame_keeps_each_new_stamp_and_reset_allows_an_old_one() -> None:
    selector = KeyframeSelector(KeyframeConfig(policy='every_frame'))
    assert [selector.accepts(frame(t)) for t in (1.0, 1.01, 1.01, 0.5)] == [
        True, True, False, False,
    ]
    selector.reset()
    assert selector.accepts(frame(0.5))
