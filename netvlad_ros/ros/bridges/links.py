# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A closure as pose graphs take it: a measured pose between the robot's bases at two stamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from netvlad_msgs.msg import LoopClosure
from netvlad_ros.ros.bridges.base_frame import between_bases
from netvlad_ros.ros.camera_mounting import CameraMounting
from netvlad_ros.ros.conversions import pose_from_msg, stamp_ns_from_msg
from netvlad_ros.types import FloatArray


@dataclass(frozen=True)
class Link:
    """A verified metric closure within one session.

    :param T_match_query: (4, 4) of the base at the query in the base at the match, metres.
    :param covariance: (6, 6) of it, as in geometry_msgs/PoseWithCovariance, along the axes of
        the base at the match.
    :param T_odom_match: (4, 4) of the base in the odometry frame; None if unknown.
    :param T_odom_query: likewise.
    """

    match_ns: int
    query_ns: int
    T_match_query: FloatArray
    covariance: FloatArray
    T_odom_match: Optional[FloatArray]
    T_odom_query: Optional[FloatArray]


def is_measured(closure: LoopClosure) -> bool:
    """Return whether a closure holds a verified metric pose between two stamps of one session."""
    return bool(
        closure.status == LoopClosure.STATUS_VERIFIED
        and closure.transform_kind == LoopClosure.TRANSFORM_METRIC
        and closure.query_session == closure.match_session
    )


def link_from_msg(closure: LoopClosure, mounting: CameraMounting) -> Optional[Link]:
    """Return the link of a measured closure, or None while a camera's mounting is unknown.

    :raises InputError: a pose of the message is not valid.
    """
    # The name of a camera is the id of its optical frame by default.
    T_base_query = mounting.lookup(closure.header.frame_id)
    T_base_match = mounting.lookup(closure.match_camera)
    T_match_query = pose_from_msg(closure.match_t_query.pose)
    if T_base_query is None or T_base_match is None or T_match_query is None:
        return None
    covariance = np.reshape(closure.match_t_query.covariance, (6, 6))
    T, covariance = between_bases(T_match_query, covariance, T_base_match, T_base_query)
    return Link(
        match_ns=stamp_ns_from_msg(closure.match_stamp),
        query_ns=stamp_ns_from_msg(closure.query_stamp),
        T_match_query=T,
        covariance=covariance,
        T_odom_match=pose_from_msg(closure.match_odom_pose),
        T_odom_query=pose_from_msg(closure.query_odom_pose),
    )
