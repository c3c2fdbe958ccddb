# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joins what arrives on separate topics into one Frame: image, odometry, depth, calibration."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
import threading
import time
from typing import Any, Optional

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image

from netvlad_ros.image_messages import depth_from_message, image_from_message
from netvlad_ros.odometry_buffer import OdometryBuffer
from netvlad_ros.ros.conversions import camera_from_msg, stamp_ns_from_msg, transform_from_msg
from netvlad_ros.ros.health import Health
from netvlad_ros.types import Camera, Float32Array, FloatArray, Frame

try:
    from cv_bridge import CvBridge

    BRIDGE: Optional[Any] = CvBridge()
except ImportError:
    BRIDGE = None

NS_PER_S = 1_000_000_000
DEPTH_IMAGES_KEPT = 8


@dataclass(frozen=True)
class ImageArrival:
    """An image message, still packed, with the wall time of its arrival."""

    message: Any
    stamp_ns: int
    arrived_s: float


class Intake:
    """Collects messages on the executor's thread; ``assemble`` runs on the worker's.

    :param max_odom_wait_s: longest wait for odometry newer than an image.
    :param max_depth_gap_s: largest difference between the stamps of image and depth.
    """

    def __init__(self, health: Health, max_odom_wait_s: float, max_depth_gap_s: float) -> None:
        self._health = health
        self._max_odom_wait_s = max_odom_wait_s
        self._max_depth_gap_ns = int(max_depth_gap_s * NS_PER_S)
        self._changed = threading.Condition()
        self._odometry = OdometryBuffer()
        self._depths: deque[Image] = deque(maxlen=DEPTH_IMAGES_KEPT)
        self._camera = Camera()
        self._camera_key: object = None
        self._static: dict[str, tuple[str, FloatArray]] = {}
        self._closed = False
        self.odom_frame_id = ''
        self._base_frame_id = ''

    def close(self) -> None:
        """Let a waiting ``assemble`` return at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def on_odometry(self, message: Odometry) -> None:
        """Take a pose; a broken one is counted and leaves the buffer as it was."""
        self._health.saw('odom')
        pose = message.pose.pose
        p, q = pose.position, pose.orientation
        with self._health.guard('odom'), self._changed:
            stamp_ns = stamp_ns_from_msg(message.header.stamp)
            if not self._odometry.add(stamp_ns, (p.x, p.y, p.z), (q.x, q.y, q.z, q.w)):
                self._health.count('odometry stamps that jumped backwards')
            self.odom_frame_id = message.header.frame_id
            self._base_frame_id = message.child_frame_id
            self._changed.notify_all()

    def on_depth(self, message: Image) -> None:
        """Keep the last few depth images, still packed."""
        self._health.saw('depth')
        with self._changed:
            self._depths.append(message)

    def on_camera_info(self, message: CameraInfo) -> None:
        """Take the calibration; it is parsed again only when it changes."""
        self._health.saw('camera_info')
        key = (message.header.frame_id, message.width, message.height, tuple(message.k))
        if key == self._camera_key:
            return
        with self._health.guard('camera_info'):
            self._camera = camera_from_msg(message)
            self._camera_key = key

    def on_static_transforms(self, message: Any) -> None:
        """Take /tf_static, for the pose of the camera on the robot."""
        with self._health.guard('tf_static'):
            for stamped in message.transforms:
                T_parent_child = transform_from_msg(stamped.transform)
                self._static[stamped.child_frame_id] = (stamped.header.frame_id, T_parent_child)

    def assemble(self, arrival: ImageArrival, odometry_expected: bool) -> Optional[Frame]:
        """Return the frame of an image, or None after counting what was wrong with it.

        :param odometry_expected: wait for odometry that is newer than the image.
        """
        with self._health.guard('image'):
            image_rgb = image_from_message(arrival.message, BRIDGE)
            camera = self._camera_of(arrival.message.header.frame_id)
            return Frame(
                stamp_ns=arrival.stamp_ns,
                image_rgb=image_rgb,
                camera=camera,
                T_odom_base=self._pose_at(arrival, odometry_expected),
                depth_m=self._depth_at(arrival.stamp_ns),
            )
        return None

    def _pose_at(self, arrival: ImageArrival, expected: bool) -> Optional[FloatArray]:
        deadline_s = arrival.arrived_s + self._max_odom_wait_s
        with self._changed:
            while expected and not self._closed:
                newest_ns = self._odometry.newest_ns
                remaining_s = deadline_s - time.monotonic()
                if (newest_ns is not None and newest_ns >= arrival.stamp_ns) or remaining_s <= 0:
                    break
                self._changed.wait(remaining_s)
            pose = self._odometry.pose_at(arrival.stamp_ns)
        if pose is None and expected:
            self._health.problem(
                'no odometry at image stamp',
                f'no odometry at the image stamp {arrival.stamp_ns / NS_PER_S:.3f} s within '
                f'{self._max_odom_wait_s} s; newest is '
                + (f'{newest_ns / NS_PER_S:.3f} s' if newest_ns else 'none'),
            )
        return pose

    def _depth_at(self, stamp_ns: int) -> Optional[Float32Array]:
        with self._changed:
            depths = list(self._depths)
        gaps = [abs(stamp_ns_from_msg(depth.header.stamp) - stamp_ns) for depth in depths]
        if not gaps or min(gaps) > self._max_depth_gap_ns:
            return None
        with self._health.guard('depth'):
            return depth_from_message(depths[gaps.index(min(gaps))])
        return None

    def _camera_of(self, image_frame_id: str) -> Camera:
        camera = self._camera
        if self._camera_key is None and image_frame_id:
            camera = replace(camera, name=image_frame_id, frame_id=image_frame_id)
        T_base_camera: Optional[FloatArray] = None
        child = camera.frame_id
        # Static transforms form a tree; its depth bounds the walk even if someone closed a loop.
        for _ in range(len(self._static)):
            if child not in self._static:
                break
            parent, T_parent_child = self._static[child]
            T_base_camera = (
                T_parent_child if T_base_camera is None else T_parent_child @ T_base_camera
            )
            if parent == self._base_frame_id:
                return replace(camera, T_base_camera=T_base_camera)
            child = parent
        return camera
