# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""RTAB-Map: links by ``add_link``, whose answer is empty, so the graph is read again after it.

RTAB-Map numbers its nodes and makes about one a second. A link is carried along odometry from
the two keyframes to the two nodes nearest in time; both systems must use the same odometry.
"""

from __future__ import annotations

from dataclasses import dataclass
import importlib
from typing import Any, Optional

from geometry_msgs.msg import Quaternion, Transform, Vector3
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from netvlad_ros.geometry import inverse, xyz_quat_from_pose
from netvlad_ros.ros.bridges.base_frame import between_bases, body_covariance
from netvlad_ros.ros.bridges.links import Link
from netvlad_ros.ros.conversions import pose_from_msg
from netvlad_ros.types import FloatArray

# Optional: nobody else needs RTAB-Map's packages.
MESSAGES = importlib.import_module('rtabmap_msgs.msg')
SERVICES = importlib.import_module('rtabmap_msgs.srv')
NS_PER_S = 1e9
PERIOD_S = 1.0
GLOBAL_CLOSURE = 1  # rtabmap::Link::kGlobalClosure; the message names no constants
# A node of the same odometry is not farther than this from where the robot was near its stamp.
MAX_OFFSET_M = 2.0


@dataclass(frozen=True)
class GraphNode:
    """A node of RTAB-Map: its number, stamp, and the base in the odometry frame (4, 4)."""

    id: int
    stamp_ns: int
    T_odom_base: FloatArray


def nodes_from_msg(data: Any) -> list[GraphNode]:
    """Return the nodes of a MapData that have an odometry pose."""
    nodes = []
    for node in data.nodes:
        T_odom_base = pose_from_msg(node.pose)
        if T_odom_base is not None:
            nodes.append(GraphNode(node.id, round(node.stamp * NS_PER_S), T_odom_base))
    return nodes


def nearest(nodes: list[GraphNode], stamp_ns: int) -> GraphNode:
    """Return the node nearest in time, of at least one."""
    return min(nodes, key=lambda node: abs(node.stamp_ns - stamp_ns))


def to_link(link: Link, match: GraphNode, query: GraphNode) -> Optional[Any]:
    """Return the Link from one node to the other, or None if odometry does not fit theirs."""
    if link.T_odom_match is None or link.T_odom_query is None:
        return None
    T_node_match = inverse(match.T_odom_base) @ link.T_odom_match
    T_node_query = inverse(query.T_odom_base) @ link.T_odom_query
    if max(np.linalg.norm(T[:3, 3]) for T in (T_node_match, T_node_query)) > MAX_OFFSET_M:
        return None
    T, covariance = between_bases(
        link.T_match_query, link.covariance, T_node_match, T_node_query
    )
    xyz, quat_xyzw = (tuple(map(float, values)) for values in xyz_quat_from_pose(T))
    return MESSAGES.Link(
        from_id=match.id,
        to_id=query.id,
        type=GLOBAL_CLOSURE,
        transform=Transform(
            translation=Vector3(**dict(zip('xyz', xyz, strict=True))),
            rotation=Quaternion(**dict(zip('xyzw', quat_xyzw, strict=True))),
        ),
        information=np.linalg.inv(body_covariance(T, covariance)).ravel(),
    )


def linked(graph: Any) -> set[frozenset[int]]:
    """Return the pairs of nodes that a MapGraph links."""
    return {frozenset((link.from_id, link.to_id)) for link in graph.links}


class RtabmapLinks:
    """Finds nodes for links, adds them, and looks whether the graph took them.

    :param node: makes the clients ``rtabmap/get_map_data`` and ``rtabmap/add_link``.
    :param max_gap_s: between a keyframe and the node that stands for it.
    """

    def __init__(self, node: Node, max_gap_s: float) -> None:
        self._log = node.get_logger()
        self._max_gap_ns = round(max_gap_s * NS_PER_S)
        self._get = node.create_client(SERVICES.GetMap, 'rtabmap/get_map_data')
        self._add = node.create_client(SERVICES.AddLink, 'rtabmap/add_link')
        self._waiting: list[Link] = []
        self._sent: list[tuple[int, int]] = []
        self._calls: list[Any] = []
        self.taken: list[tuple[int, int]] = []
        self.refused: list[tuple[int, int]] = []
        node.create_timer(PERIOD_S, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def add(self, link: Link) -> None:
        """Add a link as soon as RTAB-Map has nodes for it."""
        self._waiting.append(link)

    def _poll(self) -> None:
        if not (self._waiting or self._sent):
            return
        if not (self._get.service_is_ready() and self._add.service_is_ready()):
            self._calls = []
            self._log.warning(
                f'no service {self._get.srv_name} or {self._add.srv_name}: RTAB-Map is not there, '
                f'{len(self._waiting)} closures wait',
                throttle_duration_sec=10.0,
            )
            return
        # Links that are still being added would look refused.
        self._calls = [call for call in self._calls if not call.done()]
        if not self._calls:
            request = SERVICES.GetMap.Request(global_map=False, optimized=False, graph_only=True)
            self._calls = [self._get.call_async(request)]
            self._calls[0].add_done_callback(lambda call: self._on_graph(call.result().data))

    def _on_graph(self, data: Any) -> None:
        present = linked(data.graph)
        for pair in self._sent:
            if frozenset(pair) in present:
                self.taken.append(pair)
                self._log.info(f'RTAB-Map took the link {pair[0]} -> {pair[1]}')
            else:
                self.refused.append(pair)
                self._log.warning(
                    f'RTAB-Map refused the link {pair[0]} -> {pair[1]}; its own log says why '
                    '(RGBD/OptimizeMaxError, or a node outside its working memory)'
                )
        self._sent = []
        nodes = nodes_from_msg(data)
        newest_ns = max((node.stamp_ns for node in nodes), default=0)
        ready = [link for link in self._waiting if link.query_ns <= newest_ns]
        self._waiting = [link for link in self._waiting if link.query_ns > newest_ns]
        for link in ready:
            self._send(link, nodes, present)

    def _send(
        self, link: Link, nodes: list[GraphNode], present: set[frozenset[int]]
    ) -> None:
        match, query = nearest(nodes, link.match_ns), nearest(nodes, link.query_ns)
        gap_ns = max(abs(match.stamp_ns - link.match_ns), abs(query.stamp_ns - link.query_ns))
        pair = (match.id, query.id)
        if gap_ns > self._max_gap_ns:
            self._log.warning(
                f'RTAB-Map has no node within {self._max_gap_ns / NS_PER_S} s of a closure of '
                f'{link.match_ns / NS_PER_S:.3f} s and {link.query_ns / NS_PER_S:.3f} s'
            )
            return
        # Neighbouring closures share nodes, and RTAB-Map may have closed the loop itself.
        if match.id == query.id or frozenset(pair) in present:
            return
        message = to_link(link, match, query)
        if message is None:
            self._log.warning(
                f'the closure {pair[0]} -> {pair[1]} is not sent: its odometry is not the one '
                'that RTAB-Map uses'
            )
            return
        present.add(frozenset(pair))
        self._sent.append(pair)
        self._calls.append(self._add.call_async(SERVICES.AddLink.Request(link=message)))
