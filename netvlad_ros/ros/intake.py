# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Joins what arrives on separate topics into one Frame: image, odometry, depth, calibration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
import math
import threading
import time
from typing import Any, Optional

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image

from netvlad_ros.camera_messages import camera_from_message
from netvlad_ros.image_messages import depth_from_message, image_from_message
from netvlad_ros.odometry_buffer import OdometryBuffer
from netvlad_ros.ros.conversions import stamp_ns_from_msg
from netvlad_ros.ros.health import Health
from netvlad_ros.ros.parameters import NodeConfig
from netvlad_ros.static_transforms import StaticTransforms
from netvlad_ros.types import Camera, Float32Array, FloatArray, Frame

try:
    from cv_bridge import CvBridge

    BRIDGE: Optional[Any] = CvBridge()
except ImportError:
    BRIDGE = None

NS_PER_S = 1_000_000_000
DEPTH_IMAGES_KEPT = 8
# Depth that has been silent for longer is not waited for.
DEPTH_SILENCE_S = 1.0
# Once so many depth images were seen, one that is much later than all of them is taken for lost.
LAGS_NEEDED, LAGS_KEPT = 5, 20
LAG_FACTOR, LAG_SLACK_S = 2.0, 0.01


@dataclass(frozen=True)
class ImageArrival:
    """An image message, still packed, with the wall time of its arrival."""

    message: Any
    stamp_ns: int
    arrived_s: float


@dataclass(frozen=True)
class _Depth:
    """A depth image message, still packed, with the wall time of its arrival."""

    message: Image
    stamp_ns: int
    arrived_s: float


class Intake:
    """Collects messages on the executor's thread; ``assemble`` runs on the worker's.

    :param config: how long to wait for what belongs to an image, and how the images are.
    """

    def __init__(self, health: Health, config: NodeConfig) -> None:
        self._health = health
        self._config = config
        self._max_depth_gap_ns = int(config.max_depth_gap_s * NS_PER_S)
        self._changed = threading.Condition()
        self._odometry = OdometryBuffer(jump_s=config.time_jump_s)
        self._depths: deque[_Depth] = deque(maxlen=DEPTH_IMAGES_KEPT)
        self._images: deque[ImageArrival] = deque(maxlen=DEPTH_IMAGES_KEPT)
        self._depth_lags_s: deque[float] = deque(maxlen=LAGS_KEPT)
        self._camera = Camera()
        self._camera_key: object = None
        self._static = StaticTransforms()
        self._closed = False
        self.odom_frame_id = ''
        self._base_frame_id = ''
        self.mounting = 'unknown'

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
                self._health.count('odometry messages out of order')
            self.odom_frame_id = message.header.frame_id
            self._base_frame_id = message.child_frame_id
            self._changed.notify_all()

    def on_depth(self, message: Image) -> None:
        """Keep the last few depth images, still packed."""
        self._health.saw('depth')
        depth = _Depth(message, stamp_ns_from_msg(message.header.stamp), time.monotonic())
        with self._changed:
            self._depths.append(depth)
            for image in self._images:
                # One that comes after its image was given up still says how late depth is.
                self._note_lag(image, depth)
            self._changed.notify_all()

    def on_camera_info(self, message: CameraInfo) -> None:
        """Take the calibration; it is parsed again only when it changes."""
        self._health.saw('camera_info')
        key = (
            message.header.frame_id, message.width, message.height, tuple(message.k),
            tuple(message.d), tuple(message.p), message.binning_x, message.binning_y,
            message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height,
        )
        if key == self._camera_key:
            return
        with self._health.guard('camera_info'):
            self._camera = camera_from_message(message, self._config.image_is_rectified)
            self._camera_key = key

    def on_static_transforms(self, message: Any) -> None:
        """Take /tf_static, for the pose of the camera on the robot."""
        with self._health.guard('tf_static'):
            self._static.add(message)

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
                depth_m=self._depth_at(arrival),
            )
        return None

    def _pose_at(self, arrival: ImageArrival, expected: bool) -> Optional[FloatArray]:
        odometry = self._odometry
        with self._changed:
            if expected:
                # After a jump back in time the buffer holds poses of the future for a moment.
                self._wait_for(arrival, lambda: odometry.covers(arrival.stamp_ns))
            pose, newest_ns = odometry.pose_at(arrival.stamp_ns), odometry.newest_ns
        if pose is None and expected:
            self._health.problem(
                'no odometry at image stamp',
                f'no odometry at the image stamp {arrival.stamp_ns / NS_PER_S:.3f} s within '
                f'{self._config.max_odom_wait_s} s; newest is '
                + (f'{newest_ns / NS_PER_S:.3f} s' if newest_ns else 'none'),
            )
        return pose

    def _wait_for(
        self, arrival: ImageArrival, is_there: Callable[[], bool], at_most_s: float = math.inf
    ) -> None:
        """Wait, with the lock held, until something is there or the image has waited enough."""
        longest_s = min(self._config.max_odom_wait_s, at_most_s)
        remaining_s = arrival.arrived_s + longest_s - time.monotonic()
        self._changed.wait_for(lambda: self._closed or is_there(), max(0.0, remaining_s))

    def _depth_at(self, arrival: ImageArrival) -> Optional[Float32Array]:
        def is_there() -> bool:
            return max(depth.stamp_ns for depth in self._depths) >= arrival.stamp_ns

        with self._changed:
            for depth in self._depths:
                self._note_lag(arrival, depth)
            self._images.append(arrival)
            if self._depths and (
                time.monotonic() - self._depths[-1].arrived_s < DEPTH_SILENCE_S
            ):
                # A registered depth image is made from its camera image and comes after it.
                self._wait_for(arrival, is_there, self._longest_lag_s())
            depths = list(self._depths)
        gaps = [abs(depth.stamp_ns - arrival.stamp_ns) for depth in depths]
        if not gaps:
            return None
        if min(gaps) > self._max_depth_gap_ns:
            self._health.count('images without depth at their stamp')
            return None
        with self._health.guard('depth'):
            return depth_from_message(depths[gaps.index(min(gaps))].message)
        return None

    def _note_lag(self, image: ImageArrival, depth: _Depth) -> None:
        """Remember how much later than its image a depth image came."""
        if abs(depth.stamp_ns - image.stamp_ns) <= self._max_depth_gap_ns:
            self._depth_lags_s.append(max(0.0, depth.arrived_s - image.arrived_s))

    def _longest_lag_s(self) -> float:
        """Return after which time a depth image must be lost; infinite while that is unknown."""
        if len(self._depth_lags_s) < LAGS_NEEDED:
            return math.inf
        return LAG_FACTOR * max(self._depth_lags_s) + LAG_SLACK_S

    def _camera_of(self, image_frame_id: str) -> Camera:
        camera = self._camera
        if self._camera_key is None and image_frame_id:
            camera = replace(camera, name=image_frame_id, frame_id=image_frame_id)
        if not self._base_frame_id:
            self.mounting = 'unknown without odometry'
            return camera
        T_base_camera = self._static.lookup(self._base_frame_id, camera.frame_id)
        if T_base_camera is None:
            self.mounting = (
                f'no static transform from {self._base_frame_id!r} to {camera.frame_id!r}'
            )
            return camera
        self.mounting = 'known'
        return replace(camera, T_base_camera=T_base_camera)

    @property
    def calibration(self) -> str:
        """What is known of the camera's intrinsics, for diagnostics."""
        if self._camera_key is None:
            return 'unknown: no camera_info'
        return 'unknown: camera_info has no focal length' if self._camera.K is None else 'known'
