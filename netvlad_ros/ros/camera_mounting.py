# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera sits on the robot, for clients of loop closures: a parameter or /tf_static."""

from __future__ import annotations

from collections.abc import Callable
import importlib
from typing import Any, Optional

from rclpy.node import Node
from rclpy.parameter import Parameter

from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.geometry import pose_from_xyz_quat
from netvlad_ros.ros import qos
from netvlad_ros.static_transforms import StaticTransforms
from netvlad_ros.types import FloatArray


class CameraMounting:
    """Knows T_base_camera of optical frames.

    Declares ``base_frame_id`` and ``base_camera_pose``: x, y, z in metres and a quaternion x, y,
    z, w of the optical frame in the base, for a robot without tf; unset takes /tf_static.

    :param on_change: called after new transforms.
    :raises ConfigError: the parameter is not a pose, or it is unset and tf2_msgs not installed.
    """

    def __init__(self, node: Node, on_change: Callable[[], None] = lambda: None) -> None:
        self.base_frame_id: str = node.declare_parameter('base_frame_id', 'base_link').value
        numbers = node.declare_parameter('base_camera_pose', Parameter.Type.DOUBLE_ARRAY).value
        self._logger = node.get_logger()
        self._on_change = on_change
        self._transforms = StaticTransforms()
        self._fixed: Optional[FloatArray] = None
        if numbers is not None:
            try:
                self._fixed = pose_from_xyz_quat(numbers[:3], numbers[3:])
            except (InputError, ValueError) as error:
                raise ConfigError(
                    f'base_camera_pose is {list(numbers)}, not x, y, z, qx, qy, qz, qw: {error}'
                ) from None
            return
        try:
            tf_message = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            raise ConfigError(
                'tf2_msgs is not installed: give the pose of the camera as base_camera_pose'
            ) from None
        node.create_subscription(tf_message, '/tf_static', self.add, qos.STATIC_TF_QOS)

    def add(self, message: Any) -> None:
        """Take a tf2_msgs/TFMessage."""
        try:
            self._transforms.add(message)
        except InputError as error:
            self._logger.warning(str(error))
        self._on_change()

    def lookup(self, camera_frame_id: str) -> Optional[FloatArray]:
        """Return T_base_camera (4, 4), or None while the transforms do not lead to the base."""
        if self._fixed is not None:
            return self._fixed
        return self._transforms.lookup(self.base_frame_id, camera_frame_id)
