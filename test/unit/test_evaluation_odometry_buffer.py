# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The odometry buffer: interpolation, bounds, and everything a robot gets wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from netvlad_ros.errors import InputError
from netvlad_ros.geometry import xyz_quat_from_pose
from netvlad_ros.odometry_buffer import OdometryBuffer

S = 1_000_000_000
NO_TURN = (0.0, 0.0, 0.0, 1.0)


def yaw_quat(yaw_rad: float) -> tuple[float, float, float, float]:
    return (0.0, 0.0, math.sin(yaw_rad / 2), math.cos(yaw_rad / 2))


def test_position_is_linear_and_rotation_is_slerp_between_neighbours() -> None:
    buffer = OdometryBuffer(max_gap_s=3.0)
    buffer.add(0, (0, 0, 0), yaw_quat(0.0))
    buffer.add(2 * S, (4, 0, 2), yaw_quat(1.0))
    T = buffer.pose_at(S // 2)
    assert T is not None
    xyz, quat_xyzw = xyz_quat_from_pose(T)
    np.testing.assert_allclose(xyz, (1.0, 0.0, 0.5))
    np.testing.assert_allclose(quat_xyzw, yaw_quat(0.25), atol=1e-12)


def test_a_stamp_outside_the_data_or_in_a_gap_has_no_pose() -> None:
    buffer = OdometryBuffer(max_gap_s=1.0)
    for stamp_s in (1, 2, 5):
        buffer.add(stamp_s * S, (stamp_s, 0, 0), NO_TURN)
    assert buffer.pose_at(S - 1) is None
    assert buffer.pose_at(5 * S + 1) is None
    assert buffer.pose_at(3 * S) is None, 'odometry stopped for 3 s'
    at_end = buffer.pose_at(5 * S)
    assert at_end is not None and at_end[0, 3] == 5.0


@pytest.mark.parametrize(
    ('xyz', 'quat_xyzw'),
    [((math.nan, 0, 0), NO_TURN), ((0, 0, 0), (0, 0, 0, math.nan)), ((0, 0, 0), (0, 0, 0, 0)),
     ((0, 0, 0), (0, 0, 0.5, 1.0))],
)
def test_a_broken_pose_is_refused_and_changes_nothing(
    xyz: tuple[float, ...], quat_xyzw: tuple[float, ...]
) -> None:
    buffer = OdometryBuffer()
    buffer.add(S, (1, 2, 3), NO_TURN)
    with pytest.raises(InputError):
        buffer.add(2 * S, xyz, quat_xyzw)
    assert buffer.newest_ns == S and len(buffer) == 1


def test_a_backwards_jump_clears_and_a_repeated_stamp_replaces() -> None:
    buffer = OdometryBuffer()
    assert buffer.add(5 * S, (0, 0, 0), NO_TURN)
    assert buffer.add(5 * S, (1, 0, 0), NO_TURN)
    assert len(buffer) == 1
    assert not buffer.add(2 * S, (9, 0, 0), NO_TURN)
    assert buffer.newest_ns == 2 * S and buffer.pose_at(5 * S) is None


def test_a_pose_that_was_overtaken_is_left_out() -> None:
    buffer = OdometryBuffer(jump_s=1.0)
    buffer.add(2 * S, (2, 0, 0), NO_TURN)
    buffer.add(3 * S, (3, 0, 0), NO_TURN)
    assert not buffer.add(3 * S - 1_000_000, (9, 0, 0), NO_TURN)
    pose = buffer.pose_at(5 * S // 2)
    assert pose is not None and pose[0, 3] == pytest.approx(2.5)
    assert buffer.covers(5 * S // 2) and not buffer.covers(S) and not buffer.covers(4 * S)


def test_the_buffer_stays_bounded() -> None:
    buffer = OdometryBuffer(max_age_s=1.0)
    for i in range(1000):
        buffer.add(i * S // 50, (i, 0, 0), NO_TURN)
    assert len(buffer) <= 2 * 50 + 1
    assert buffer.pose_at(999 * S // 50 - S) is not None
