# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages and core types, there and back."""

from dataclasses import fields, replace

import numpy as np
import numpy.testing as npt
import pytest
from sensor_msgs.msg import CameraInfo

from netvlad_msgs.msg import LoopClosure as LoopClosureMsg
from netvlad_ros.camera_messages import camera_from_message
from netvlad_ros.errors import InputError
from netvlad_ros.geometry import pose_from_xyz_quat
from netvlad_ros.ros import conversions
from netvlad_ros.types import (
    Camera,
    ClosureStatus,
    Keyframe,
    LoopClosure,
    RejectReason,
    TransformKind,
)

T_ODOM_BASE = pose_from_xyz_quat((1.0, -2.0, 3.0), (0.5, -0.5, 0.5, 0.5))
QUERY = Keyframe(7, 12_345_678_901, 'session-b', 'front', 0, T_ODOM_BASE)
MATCH = Keyframe(3, 2_000_000_003, 'session-a', 'rear', 5, None)
CLOSURE = LoopClosure(
    query=QUERY, match=MATCH, similarity=0.5, model_id='net@0123456789ab', margin=0.25,
    probability=0.75, consistency=3, rank=1, status=ClosureStatus.VERIFIED,
    transform_kind=TransformKind.METRIC, T_match_query=T_ODOM_BASE,
    covariance=np.arange(36.0).reshape(6, 6), num_matches=40, num_inliers=30,
    latency_ns=1_500_000_000,
)  # fmt: skip


def same(a, b):
    for item in fields(a):
        left, right = getattr(a, item.name), getattr(b, item.name)
        if isinstance(left, np.ndarray):
            npt.assert_allclose(left, right, atol=1e-12)
        elif isinstance(left, Keyframe):
            same(left, right)
        elif not (left != left and right != right):
            assert left == right, item.name


@pytest.mark.parametrize(
    'closure',
    [
        CLOSURE,
        replace(CLOSURE, status=ClosureStatus.REJECTED, transform_kind=TransformKind.NONE,
                reject_reason=RejectReason.TOO_FEW_INLIERS, T_match_query=None, covariance=None),
    ],
)  # fmt: skip
def test_a_closure_survives_the_message(closure):
    message = conversions.closure_to_msg(closure, 'front_optical')
    assert message.header.frame_id == 'front_optical'
    assert message.header.stamp == message.query_stamp
    same(closure, conversions.closure_from_msg(message))


def test_the_constants_of_the_message_are_those_of_the_core():
    for prefix, enum in (
        ('STATUS', ClosureStatus), ('REJECT', RejectReason), ('TRANSFORM', TransformKind),
    ):  # fmt: skip
        for member in enum:
            assert getattr(LoopClosureMsg, f'{prefix}_{member.name}') == member.value


def test_an_unknown_pose_is_all_zero_and_no_valid_one_is():
    assert conversions.pose_from_msg(conversions.pose_to_msg(None)) is None
    npt.assert_allclose(
        conversions.pose_from_msg(conversions.pose_to_msg(T_ODOM_BASE)), T_ODOM_BASE, atol=1e-12
    )


def test_a_camera_survives_the_message_and_zeros_mean_uncalibrated():
    K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    camera = Camera('optical', 'optical', (640, 480), K, 'plumb_bob', np.arange(5.0))
    same(camera, camera_from_message(conversions.camera_to_msg(camera, 0)))
    assert camera_from_message(CameraInfo(width=640, height=480)).K is None


def test_rectified_reduced_and_cut_images_have_the_camera_of_their_pixels():
    message = CameraInfo(width=640, height=480, d=[0.1] * 4, distortion_model='equidistant')
    message.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    message.p = [400.0, 0.0, 310.0, 0.0, 0.0, 410.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    rectified = camera_from_message(message, is_rectified=True)
    npt.assert_array_equal(rectified.K, [[400, 0, 310], [0, 410, 230], [0, 0, 1]])
    assert (rectified.distortion_model, rectified.distortion.size) == ('', 0)
    message.roi.x_offset, message.roi.y_offset = 20, 40
    message.roi.width, message.roi.height = 600, 400
    message.binning_x = message.binning_y = 2
    part = camera_from_message(message)
    assert part.size_wh == (300, 200)
    npt.assert_array_equal(part.K, [[250, 0, 150], [0, 255, 100], [0, 0, 1]])


def test_an_unknown_distortion_model_is_refused():
    message = CameraInfo(width=640, height=480, distortion_model='double_sphere')
    message.k[0] = message.k[4] = 500.0
    message.p[0] = message.p[5] = 400.0
    with pytest.raises(InputError, match='double_sphere'):
        camera_from_message(message)
    assert camera_from_message(message, is_rectified=True).K[0, 0] == 400.0


@pytest.mark.parametrize('broken', [float('nan'), -500.0])
def test_a_broken_calibration_is_refused(broken):
    message = CameraInfo(width=640, height=480)
    message.k[0] = broken
    with pytest.raises(InputError):
        camera_from_message(message)
