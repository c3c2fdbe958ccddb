# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Relocalisation: where the robot was when it stored the keyframe that it recognises now."""

from __future__ import annotations

from typing import Optional

from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np

from netvlad_msgs.msg import LoopClosure

TOPIC = 'initialpose'


def to_initial_pose(
    closure: LoopClosure, frame_id: str, std_m: float, std_rad: float
) -> Optional[PoseWithCovarianceStamped]:
    """Return the stored pose of the base at the match, stamped with the time of the query.

    :param frame_id: the frame of the stored poses, the odometry frame of the match's session.
    :param std_m: how far from the stored pose a recognised robot may be, per axis.
    :param std_rad: how far it may be turned from it, per axis.
    :returns: None for a match of the present session or one without a stored pose.
    """
    q = closure.match_odom_pose.orientation
    if closure.query_session == closure.match_session or not any((q.x, q.y, q.z, q.w)):
        return None
    message = PoseWithCovarianceStamped()
    message.header.stamp = closure.query_stamp
    message.header.frame_id = frame_id
    message.pose.pose = closure.match_odom_pose
    message.pose.covariance = np.diag([std_m**2] * 3 + [std_rad**2] * 3).ravel()
    return message
