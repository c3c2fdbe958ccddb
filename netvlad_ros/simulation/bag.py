# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a drive as a rosbag2 with MCAP storage, through ``rosbags``, without ROS."""

from __future__ import annotations

from pathlib import Path
import shutil
from types import TracebackType
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from netvlad_ros.errors import InputError
from netvlad_ros.geometry import xyz_quat_from_pose
from netvlad_ros.types import Camera, FloatArray, UInt8Array

NANOSECONDS = 1_000_000_000
FOREVER = QosTime(2147483647, 4294967295)

# Latched, so that a node that starts late still gets the camera's place on the robot.
STATIC_QOS = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, FOREVER,
    FOREVER, QosLiveliness.AUTOMATIC, FOREVER, False,
)


class DriveBag:
    """An open bag with the topics of a drive.

    :param path: folder of the bag, which must not exist.
    :param raw: ``/image`` with rgb8 instead of ``/image/compressed`` with JPEG.
    :raises InputError: the folder exists or cannot be made.

    As a context, it closes the bag at the end and removes it after an error.
    """

    def __init__(self, path: Path, camera: Camera, raw: bool) -> None:
        self.path, self._camera, self._raw = path, camera, raw
        self._store = get_typestore(Stores.ROS2_JAZZY)
        if path.exists():
            raise InputError(f'output {str(path)!r} exists; give a new name or remove it')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except OSError as error:
            raise InputError(f'cannot write output {str(path)!r}: {error.strerror}') from error
        image = ('/image', 'sensor_msgs/msg/Image') if raw else (
            '/image/compressed', 'sensor_msgs/msg/CompressedImage')
        self._topics = {
            'image': self._topic(*image),
            'camera_info': self._topic('/camera_info', 'sensor_msgs/msg/CameraInfo'),
            'depth': self._topic('/depth', 'sensor_msgs/msg/Image'),
            'odom': self._topic('/odom', 'nav_msgs/msg/Odometry'),
            'truth': self._topic('/ground_truth/odom', 'nav_msgs/msg/Odometry'),
            'tf_static': self._topic('/tf_static', 'tf2_msgs/msg/TFMessage', [STATIC_QOS]),
        }

    def __enter__(self) -> DriveBag:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._writer.close()
        if kind is not None:
            # A drive that ends early would look like a whole one.
            shutil.rmtree(self.path, ignore_errors=True)

    def _topic(self, name: str, kind: str, qos: Optional[list[Qos]] = None) -> Any:
        return self._writer.add_connection(
            name, kind, typestore=self._store, offered_qos_profiles=qos or []
        )

    def _make(self, kind: str, *values: Any) -> Any:
        return self._store.types[kind](*values)

    def _write(self, topic: str, stamp_ns: int, message: Any) -> None:
        connection = self._topics[topic]
        data = self._store.serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, stamp_ns, data)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._make('builtin_interfaces/msg/Time', *divmod(stamp_ns, NANOSECONDS))
        return self._make('std_msgs/msg/Header', stamp, frame_id)

    def _pose_parts(self, T: FloatArray) -> tuple[Any, Any, Any]:
        """Return position and orientation for Pose, and the translation for Transform."""
        xyz, quat_xyzw = xyz_quat_from_pose(T)
        point = self._make('geometry_msgs/msg/Point', *xyz.tolist())
        quaternion = self._make('geometry_msgs/msg/Quaternion', *quat_xyzw.tolist())
        return point, quaternion, self._make('geometry_msgs/msg/Vector3', *xyz.tolist())

    def write_static_transform(
        self, stamp_ns: int, parent: str, child: str, T: FloatArray
    ) -> None:
        """Write one transform to ``/tf_static``."""
        _, quaternion, translation = self._pose_parts(T)
        transform = self._make('geometry_msgs/msg/Transform', translation, quaternion)
        stamped = self._make(
            'geometry_msgs/msg/TransformStamped', self._header(stamp_ns, parent), child, transform
        )
        self._write('tf_static', stamp_ns, self._make('tf2_msgs/msg/TFMessage', [stamped]))

    def write_odometry(
        self, topic: str, stamp_ns: int, parent: str, child: str, T: FloatArray,
        forward_mps: float, yaw_rate_radps: float, sigma: tuple[float, float],
    ) -> None:
        """Write a pose and a velocity.

        :param topic: odom or truth.
        :param sigma: standard deviation of position in metres and of heading in radians.
        """
        point, quaternion, _ = self._pose_parts(T)
        pose = self._make('geometry_msgs/msg/Pose', point, quaternion)
        variances = np.array([sigma[0], sigma[0], 0.001, 0.001, 0.001, sigma[1]]) ** 2
        covariance = np.diag(variances).ravel()
        linear = self._make('geometry_msgs/msg/Vector3', forward_mps, 0.0, 0.0)
        angular = self._make('geometry_msgs/msg/Vector3', 0.0, 0.0, yaw_rate_radps)
        twist = self._make('geometry_msgs/msg/Twist', linear, angular)
        self._write(topic, stamp_ns, self._make(
            'nav_msgs/msg/Odometry', self._header(stamp_ns, parent), child,
            self._make('geometry_msgs/msg/PoseWithCovariance', pose, covariance),
            self._make('geometry_msgs/msg/TwistWithCovariance', twist, covariance.copy()),
        ))

    def write_camera_info(self, stamp_ns: int) -> None:
        """Write the intrinsics."""
        camera = self._camera
        assert camera.K is not None
        width, height = camera.size_wh
        P = np.hstack([camera.K, np.zeros((3, 1))])
        roi = self._make('sensor_msgs/msg/RegionOfInterest', 0, 0, 0, 0, False)
        self._write('camera_info', stamp_ns, self._make(
            'sensor_msgs/msg/CameraInfo', self._header(stamp_ns, camera.frame_id), height, width,
            camera.distortion_model, camera.distortion, camera.K.ravel(), np.eye(3).ravel(),
            P.ravel(), 0, 0, roi,
        ))

    def write_image(self, stamp_ns: int, data: UInt8Array) -> None:
        """Write (H, W, 3) RGB, or the bytes of a JPEG, as the bag was opened for."""
        header = self._header(stamp_ns, self._camera.frame_id)
        if self._raw:
            height, width = data.shape[:2]
            message = self._make('sensor_msgs/msg/Image', header, height, width, 'rgb8', 0,
                                 3 * width, data.ravel())
        else:
            kind = 'sensor_msgs/msg/CompressedImage'
            message = self._make(kind, header, 'rgb8; jpeg compressed bgr8', data)
        self._write('image', stamp_ns, message)

    def write_depth(self, stamp_ns: int, depth_mm: npt.NDArray[np.uint16]) -> None:
        """Write (H, W) uint16 millimetres registered to the image."""
        height, width = depth_mm.shape
        header = self._header(stamp_ns, self._camera.frame_id)
        data = np.frombuffer(depth_mm.astype('<u2').tobytes(), np.uint8)
        self._write('depth', stamp_ns, self._make(
            'sensor_msgs/msg/Image', header, height, width, '16UC1', 0, 2 * width, data))
