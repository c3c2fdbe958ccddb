# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hydra and Kimera: edges of pose_graph_tools_msgs/PoseGraph, with stamps in ns for keys.

The two read an edge in opposite directions. Kimera takes its pose for that of ``key_to`` in
``key_from``, Hydra for that of ``key_from`` in ``key_to`` (and has Ouroboros send it so). The
pose here is that of the query in the match; which of them is ``key_from`` depends on the reader.
"""

from __future__ import annotations

import importlib
from typing import Any

from netvlad_ros.ros.bridges.links import Link
from netvlad_ros.ros.conversions import header_to_msg, pose_to_msg

# Not among the package's dependencies: rosdep has no key for it.
MESSAGES = importlib.import_module('pose_graph_tools_msgs.msg')
TOPICS = {'hydra': 'external_loop_closures', 'kimera': 'pose_graph_loop_closures'}


def to_pose_graph(link: Link, reader: str, robot_id: int, base_frame_id: str) -> Any:
    """Return a PoseGraph of one loop closure and no node.

    :param reader: hydra or kimera.
    :returns: stamped with the query; the covariance is that of ``Link``, position first.
    """
    keys = (link.query_ns, link.match_ns) if reader == 'hydra' else (link.match_ns, link.query_ns)
    header = header_to_msg(link.query_ns, base_frame_id)
    edge = MESSAGES.PoseGraphEdge(
        header=header,
        key_from=keys[0],
        key_to=keys[1],
        robot_from=robot_id,
        robot_to=robot_id,
        type=MESSAGES.PoseGraphEdge.LOOPCLOSE,
        pose=pose_to_msg(link.T_match_query),
        covariance=link.covariance.ravel(),
    )
    return MESSAGES.PoseGraph(header=header, edges=[edge])
