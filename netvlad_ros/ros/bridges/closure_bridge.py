# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node ``closure_bridge``: republishes loop closures for other systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from geometry_msgs.msg import PoseWithCovarianceStamped
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.errors import ConfigError
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges import initial_pose, lio_sam
from netvlad_ros.ros.conversions import stamp_ns_from_msg

STATUSES = {
    'CANDIDATE': LoopClosure.STATUS_CANDIDATE,
    'CONSISTENT': LoopClosure.STATUS_CONSISTENT,
    'VERIFIED': LoopClosure.STATUS_VERIFIED,
}
# LIO-SAM checks a pair itself; nobody checks an initial pose.
BRIDGES = {'lio_sam': 'CONSISTENT', 'initialpose': 'VERIFIED'}


@dataclass(frozen=True)
class _Bridge:
    """Converts closures of at least a status and publishes those that fit."""

    min_status: int
    convert: Callable[[LoopClosure], Optional[Any]]
    publish: Callable[[Any], None]


class ClosureBridge(Node):
    """Sends each pair of keyframes once to each bridge, when it first reaches its status.

    :raises ConfigError: a parameter has a value that is not allowed.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('closure_bridge', **kwargs)
        names = self.declare_parameter('bridges', ['lio_sam']).value
        minimum = {
            name: self.declare_parameter(f'{name}.min_status', status).value
            for name, status in BRIDGES.items()
        }
        self._frame_id = self.declare_parameter('initialpose.frame_id', 'map').value
        self._std_m = self.declare_parameter('initialpose.std_m', 1.0).value
        self._std_rad = self.declare_parameter('initialpose.std_rad', 0.3).value
        self._bridges = {name: self._make(name, minimum) for name in names}
        self._sent: set[tuple[str, str, int, str, int]] = set()
        self.create_subscription(
            LoopClosureArray, 'loop_closures', self._on_closures, qos.RESULT_QOS
        )

    def _make(self, name: str, minimum: dict[str, str]) -> _Bridge:
        if name not in BRIDGES:
            raise ConfigError(f'bridges has {name!r}, allowed: {", ".join(BRIDGES)}')
        if minimum[name] not in STATUSES:
            raise ConfigError(
                f'{name}.min_status is {minimum[name]!r}, allowed: {", ".join(STATUSES)}'
            )
        if name == 'lio_sam':
            convert, kind, topic = lio_sam.to_stamps, Float64MultiArray, lio_sam.TOPIC
        else:
            convert, topic = self._initial_pose, initial_pose.TOPIC
            kind = PoseWithCovarianceStamped
        publisher = self.create_publisher(kind, topic, qos.RESULT_QOS)
        return _Bridge(STATUSES[minimum[name]], convert, publisher.publish)

    def _initial_pose(self, closure: LoopClosure) -> Optional[PoseWithCovarianceStamped]:
        return initial_pose.to_initial_pose(
            closure, self._frame_id, self._std_m, self._std_rad
        )

    def _on_closures(self, message: LoopClosureArray) -> None:
        for closure in message.closures:
            for name, bridge in self._bridges.items():
                self._pass_on(name, bridge, closure)

    def _pass_on(self, name: str, bridge: _Bridge, closure: LoopClosure) -> None:
        if not bridge.min_status <= closure.status <= LoopClosure.STATUS_VERIFIED:
            return
        key = (
            name,
            closure.query_session, stamp_ns_from_msg(closure.query_stamp),
            closure.match_session, stamp_ns_from_msg(closure.match_stamp),
        )
        converted = None if key in self._sent else bridge.convert(closure)
        if converted is not None:
            self._sent.add(key)
            bridge.publish(converted)


def main(args: Optional[Sequence[str]] = None) -> int:
    """Run the node until it is told to end.

    :returns: 0 after a requested end, 1 if a parameter has a wrong value.
    """
    with rclpy.init(args=args):
        try:
            rclpy.spin(ClosureBridge())
        except (ConfigError, ParameterException) as error:
            rclpy.logging.get_logger('closure_bridge').fatal(f'cannot start: {error}')
            return 1
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
