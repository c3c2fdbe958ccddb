# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node ``closure_bridge``: republishes loop closures for other systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import importlib
import importlib.util
from typing import Any, Optional

from geometry_msgs.msg import PoseWithCovarianceStamped
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges import initial_pose, lio_sam
from netvlad_ros.ros.bridges.links import Link, is_measured, link_from_msg
from netvlad_ros.ros.camera_mounting import CameraMounting
from netvlad_ros.ros.conversions import stamp_ns_from_msg
from netvlad_ros.ros.spin import spin_until_shutdown

STATUSES = {
    'CANDIDATE': LoopClosure.STATUS_CANDIDATE,
    'CONSISTENT': LoopClosure.STATUS_CONSISTENT,
    'VERIFIED': LoopClosure.STATUS_VERIFIED,
}
# LIO-SAM checks a pair itself; nobody checks an initial pose.
MIN_STATUS = {'lio_sam': 'CONSISTENT', 'initialpose': 'VERIFIED'}
# Pose graphs take measured poses between the robot's bases.
PACKAGES = {
    'hydra': 'pose_graph_tools_msgs',
    'kimera': 'pose_graph_tools_msgs',
    'rtabmap': 'rtabmap_msgs',
}
INSTALL = {
    'pose_graph_tools_msgs': 'build pose_graph_tools_msgs of '
    'https://github.com/MIT-SPARK/pose_graph_tools, branch feature/ros2',
    'rtabmap_msgs': 'apt install ros-$ROS_DISTRO-rtabmap-msgs',
}
BRIDGES = (*MIN_STATUS, *PACKAGES)
# About 1 kB each; the oldest are let go.
MAX_WAITING = 10_000


def require_package(bridge: str) -> None:
    """Check that the messages of a bridge are installed.

    :raises ConfigError: saying how to install them.
    """
    package = PACKAGES.get(bridge)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f'the bridge {bridge!r} needs {package}, which is not installed: {INSTALL[package]}'
        )


class ClosureBridge(Node):
    """Sends each pair of keyframes once to each bridge, when it first fits.

    ``initialpose`` is sent once in a session: the robot is localised from then on. A match within
    this run tells nothing: its odometry is not in the frame of a map.

    :raises ConfigError: a parameter has a value that is not allowed, or a bridge's messages are
        not installed.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('closure_bridge', **kwargs)
        names = self.declare_parameter('bridges', ['lio_sam']).value
        minimum = {
            name: self.declare_parameter(f'{name}.min_status', status).value
            for name, status in MIN_STATUS.items()
        }
        self._frame_id = self.declare_parameter('initialpose.frame_id', 'map').value
        self._std_m = self.declare_parameter('initialpose.std_m', 1.0).value
        self._std_rad = self.declare_parameter('initialpose.std_rad', 0.3).value
        self._robot_id = self.declare_parameter('robot_id', 0).value
        self._max_gap_s = self.declare_parameter('rtabmap.max_gap_s', 0.6).value
        self._minimum: dict[str, int] = {}
        for name in names:
            if name not in BRIDGES:
                raise ConfigError(f'bridges has {name!r}, allowed: {", ".join(BRIDGES)}')
            status = minimum.get(name, 'VERIFIED')
            if status not in STATUSES:
                raise ConfigError(
                    f'{name}.min_status is {status!r}, allowed: {", ".join(STATUSES)}'
                )
            require_package(name)
            self._minimum[name] = STATUSES[status]
        self._mounting: CameraMounting
        if set(names) & set(PACKAGES):
            self._mounting = CameraMounting(self, self._try_again)
        self._send = {name: self._make(name) for name in names}
        self.get_logger().info(f'sends loop closures to {", ".join(names)}')
        self._sent: set[tuple[object, ...]] = set()
        # Sessions of this run: their odometry frame is not the one that `initialpose` is in.
        self._own_sessions: set[str] = set()
        # Closures that came before the transform of their camera.
        self._waiting: dict[tuple[object, ...], LoopClosure] = {}
        self.create_subscription(
            LoopClosureArray, 'loop_closures', self._on_closures, qos.RESULT_QOS
        )

    def _make(self, name: str) -> Callable[[LoopClosure], bool]:
        """Return what sends a closure to a bridge and says whether the closure fitted."""
        if name == 'lio_sam':
            return self._published(Float64MultiArray, lio_sam.TOPIC, lio_sam.to_stamps)
        if name == 'initialpose':
            return self._published(
                PoseWithCovarianceStamped, initial_pose.TOPIC,
                lambda closure: initial_pose.to_initial_pose(
                    closure, self._frame_id, self._std_m, self._std_rad
                ),
            )
        if name == 'rtabmap':
            from netvlad_ros.ros.bridges.rtabmap import RtabmapLinks

            self.rtabmap = RtabmapLinks(self, self._max_gap_s)
            return self._linked(self.rtabmap.add)
        from netvlad_ros.ros.bridges import pose_graph_tools

        publisher = self.create_publisher(
            pose_graph_tools.MESSAGES.PoseGraph, pose_graph_tools.TOPICS[name], qos.RESULT_QOS
        )
        base_frame_id = self._mounting.base_frame_id
        return self._linked(
            lambda link: publisher.publish(
                pose_graph_tools.to_pose_graph(link, name, self._robot_id, base_frame_id)
            )
        )

    def _published(
        self, kind: Any, topic: str, convert: Callable[[LoopClosure], Optional[Any]]
    ) -> Callable[[LoopClosure], bool]:
        publisher = self.create_publisher(kind, topic, qos.RESULT_QOS)

        def send(closure: LoopClosure) -> bool:
            converted = convert(closure)
            if converted is not None:
                publisher.publish(converted)
            return converted is not None

        return send

    def _linked(self, take: Callable[[Link], None]) -> Callable[[LoopClosure], bool]:
        def send(closure: LoopClosure) -> bool:
            if not is_measured(closure):
                return False
            link = link_from_msg(closure, self._mounting)
            if link is None:
                self._waiting[_pair(closure)] = closure
                while len(self._waiting) > MAX_WAITING:
                    del self._waiting[next(iter(self._waiting))]
                self.get_logger().warning(
                    f'no static transform from {self._mounting.base_frame_id!r} (base_frame_id) '
                    f'to {closure.header.frame_id!r} or {closure.match_camera!r} yet',
                    throttle_duration_sec=10.0,
                )
                return False
            take(link)
            return True

        return send

    def _on_closures(self, message: LoopClosureArray) -> None:
        for closure in message.closures:
            self._own_sessions.add(closure.query_session)
            for name in self._send:
                try:
                    self._pass_on(name, closure)
                except InputError as error:
                    self.get_logger().warning(
                        f'loop closure not sent to {name}: {error}', throttle_duration_sec=10.0
                    )

    def _try_again(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._on_closures(LoopClosureArray(closures=list(waiting.values())))

    def _pass_on(self, name: str, closure: LoopClosure) -> None:
        if not self._minimum[name] <= closure.status <= LoopClosure.STATUS_VERIFIED:
            return
        key: tuple[object, ...] = (name, *_pair(closure))
        if name == 'initialpose':
            if closure.match_session in self._own_sessions:
                return
            # A filter that is told again and again where it is never comes to converge.
            key = name, closure.query_session
        if key not in self._sent and self._send[name](closure):
            self._sent.add(key)


def _pair(closure: LoopClosure) -> tuple[object, ...]:
    """Return what tells the two keyframes of a closure from all others."""
    return (
        closure.query_session, stamp_ns_from_msg(closure.query_stamp),
        closure.match_session, stamp_ns_from_msg(closure.match_stamp),
    )  # fmt: skip


def main(args: Optional[Sequence[str]] = None) -> int:
    """Run the node until it is told to end.

    :returns: 0 after a requested end, 1 if a parameter has a wrong value or a package is missing.
    """
    # On Jazzy rclpy.init is no context manager.
    rclpy.init(args=args)
    # An executor that is made while a signal shuts the context down complains when it is deleted.
    executor = SingleThreadedExecutor()
    try:
        executor.add_node(ClosureBridge())
        spin_until_shutdown(executor)
    except (ConfigError, ParameterException) as error:
        rclpy.logging.get_logger('closure_bridge').fatal(f'cannot start: {error}')
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # A signal took the context down before the node was complete.
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
