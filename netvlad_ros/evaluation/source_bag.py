# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings that are ROS 2 bags (MCAP or SQLite), read without ROS in one pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
import logging
from pathlib import Path
from typing import Any, Optional
import zlib

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from netvlad_ros.camera_messages import camera_from_message
from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import DAMAGED_IMAGE, SkipCounts, Topics
from netvlad_ros.evaluation.truth import GroundTruth, PoseTrack
from netvlad_ros.geometry import pose_from_xyz_quat
from netvlad_ros.image_messages import depth_from_message, image_from_message
from netvlad_ros.odometry_buffer import NS_PER_S, OdometryBuffer
from netvlad_ros.static_transforms import StaticTransforms
from netvlad_ros.types import Camera, Float32Array, FloatArray, Frame

logger = logging.getLogger(__name__)

_IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
_ODOM_TYPE = 'nav_msgs/msg/Odometry'
_TRUTH_TYPES = (
    _ODOM_TYPE,
    'geometry_msgs/msg/PoseStamped',
    'geometry_msgs/msg/PoseWithCovarianceStamped',
    'geometry_msgs/msg/TransformStamped',
)
_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
_TF_TYPE = 'tf2_msgs/msg/TFMessage'
# As the name of a topic that the bag may have: evaluate as if it had not.
LEFT_OUT = 'none'
# An image waits this long for the odometry and depth of its stamp, as in the node.
_MAX_WAIT_NS = NS_PER_S // 2
# Depth belongs to an image if their stamps differ by less than this.
_DEPTH_TOLERANCE_NS = NS_PER_S // 50
# What rosbags raises for a file that is cut short or overwritten.
_DAMAGE = (AnyReaderError, OSError, ValueError, KeyError, IndexError, EOFError, AssertionError,
           zlib.error, RuntimeError)


class BagSource:
    """A rosbag2 folder, or a single .mcap or .db3 file.

    :param poses: true poses in place of a topic with ground truth.
    :param image_is_rectified: the camera is that of ``p`` of its CameraInfo.
    :raises InputError: the bag is damaged, or has not the topics that are needed.
    """

    def __init__(
        self, path: Path, topics: Topics, poses: Optional[PoseTrack] = None,
        image_is_rectified: bool = False,
    ) -> None:
        self.path = path
        self.name = path.resolve().stem
        self.protocol: Mapping[str, Any] = {}
        self.skipped = SkipCounts()
        self.ground_truth = GroundTruth(poses=poses)
        with self._open() as reader:
            self._types: dict[str, str] = {
                name: info.msgtype or '' for name, info in reader.topics.items()
            }
            self.topics = self._choose(topics)
            self.frame_count = reader.topics[self.topics.image].msgcount
            self.camera = self._read_camera(reader, image_is_rectified)
        if poses is not None:
            self.topics = replace(self.topics, ground_truth='')

    @contextmanager
    def _open(self) -> Iterator[AnyReader]:
        """Open the bag and turn what damage does to rosbags into one error."""
        try:
            store = get_typestore(Stores.LATEST)
            with AnyReader([self.path], default_typestore=store) as reader:
                yield reader
        except InputError:
            raise
        except _DAMAGE as error:
            text = ' '.join(str(error).split()) or type(error).__name__
            raise InputError(
                f'bag {self.path} is damaged or cut short ({text}); '
                "'ros2 bag reindex' or 'mcap recover' may save it"
            ) from error

    def _choose(self, asked: Topics) -> Topics:
        """Return the topics to read: those asked for, the usual names, or the only of a type."""
        ground_truth = self._pick(
            'ground-truth', asked.ground_truth, ('/ground_truth/odom',), _TRUTH_TYPES,
            by_name_only=True,
        )  # fmt: skip
        return Topics(
            image=self._pick(
                'image', asked.image, ('/image', '/image/compressed'), _IMAGE_TYPES, needed=True
            ),
            camera_info=self._pick(
                'camera-info', asked.camera_info, ('/camera_info',), (_INFO_TYPE,)
            ),
            odom=self._pick(
                'odom', asked.odom, ('/odom',), (_ODOM_TYPE,), leave_out=ground_truth
            ),
            depth=self._pick('depth', asked.depth, ('/depth',), _IMAGE_TYPES, by_name_only=True),
            ground_truth=ground_truth,
        )

    def _pick(
        self,
        option: str,
        asked: str,
        usual: tuple[str, ...],
        types: tuple[str, ...],
        by_name_only: bool = False,
        needed: bool = False,
        leave_out: str = '',
    ) -> str:
        """Return the topic for an option ``--OPTION-topic``, '' for none."""
        if asked == LEFT_OUT and not needed:
            return ''
        if asked:
            return self._asked_topic(option, asked, types)
        for name in usual:
            if self._types.get(name) in types:
                return name
        if by_name_only:
            return ''
        fitting = sorted(n for n, kind in self._types.items() if kind in types and n != leave_out)
        if len(fitting) == 1:
            return fitting[0]
        several = f'{self.path} has several {option} topics, {", ".join(fitting)}'
        if needed:
            found = several if fitting else f'{self.path} has no {option} topic'
            raise InputError(f'{found}: choose with --{option}-topic. {self._have()}')
        if fitting:
            logger.warning('%s: none is used, choose with --%s-topic', several, option)
        return ''

    def _asked_topic(self, option: str, asked: str, types: tuple[str, ...]) -> str:
        for name in (asked, f'/{asked}'):
            if name in self._types:
                if self._types[name] not in types:
                    raise InputError(
                        f'--{option}-topic {name!r} is {self._types[name]}, allowed: '
                        f'{", ".join(types)}. {self._have()}'
                    )
                return name
        raise InputError(f'{self.path} has no topic {asked!r}. {self._have()}')

    def _have(self) -> str:
        return 'It has: ' + ', '.join(f'{n} ({k})' for n, k in sorted(self._types.items()))

    def _read_camera(self, reader: AnyReader, is_rectified: bool) -> Camera:
        image = next(self._messages(reader, [self.topics.image]), None)
        frame_id = image[1].header.frame_id if image else ''
        camera = Camera(name=frame_id or 'camera', frame_id=frame_id or 'camera_optical')
        if self.topics.camera_info:
            info = next(self._messages(reader, [self.topics.camera_info]), None)
            try:
                found = camera_from_message(info[1], is_rectified) if info else camera
                camera = replace(found, name=camera.name, frame_id=camera.frame_id)
            except InputError as error:
                logger.warning('%s: not calibrated: %s', self.path, error)
        base = ''
        for topic in (self.topics.ground_truth, self.topics.odom):
            sample = next(self._messages(reader, [topic]), None) if topic and not base else None
            # A PoseStamped does not say whose pose it is.
            base = str(getattr(sample[1], 'child_frame_id', '')) if sample else base
        base = base or 'base_link'
        statics = [n for n, kind in self._types.items()
                   if kind == _TF_TYPE and n.endswith('tf_static')]
        static = StaticTransforms()
        for _, message in self._messages(reader, statics) if statics else ():
            try:
                static.add(message)
            except InputError as error:
                logger.warning('%s: %s', self.path, error)
        return replace(camera, T_base_camera=static.lookup(base, camera.frame_id))

    def _messages(self, reader: AnyReader, topics: list[str]) -> Iterator[tuple[str, Any]]:
        connections = [c for c in reader.connections if c.topic in topics]
        if not connections:
            return
        for connection, _, raw in reader.messages(connections):
            yield connection.topic, reader.deserialize(raw, connection.msgtype)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames with odometry and depth of their stamps.

        A damaged image or pose is counted and left out; a frame whose odometry does not come is
        yielded without a pose.

        :raises InputError: the bag itself is damaged.
        """
        self.skipped = SkipCounts()
        odometry, depths = OdometryBuffer(), deque[tuple[int, Any]](maxlen=64)
        waiting: deque[tuple[int, Any]] = deque()
        truth: list[tuple[int, FloatArray]] = []
        wanted = [t for t in vars(self.topics).values() if t and t != self.topics.camera_info]
        with self._open() as reader:
            for topic, message in self._messages(reader, wanted):
                stamp = message.header.stamp
                stamp_ns = stamp.sec * NS_PER_S + stamp.nanosec
                if topic == self.topics.image:
                    waiting.append((stamp_ns, message))
                elif topic == self.topics.depth:
                    depths.append((stamp_ns, message))
                elif topic == self.topics.odom:
                    self._take_odometry(odometry, stamp_ns, message)
                if topic == self.topics.ground_truth:
                    self._take_truth(truth, stamp_ns, message)
                while waiting and self._is_served(waiting[0][0], stamp_ns, odometry, depths):
                    yield from self._frame(*waiting.popleft(), odometry, depths)
            while waiting:
                yield from self._frame(*waiting.popleft(), odometry, depths)
        truth.sort(key=lambda item: item[0])
        if truth:
            stamps_ns = np.asarray([item[0] for item in truth], dtype=np.int64)
            poses = np.stack([item[1] for item in truth])
            self.ground_truth = GroundTruth(poses=PoseTrack(stamps_ns, poses, frame='base'))

    def _is_served(
        self, image_ns: int, now_ns: int, odometry: OdometryBuffer, depths: deque[tuple[int, Any]]
    ) -> bool:
        if now_ns - image_ns > _MAX_WAIT_NS or now_ns < image_ns - _MAX_WAIT_NS:
            return True
        has_odometry = not self.topics.odom or (odometry.newest_ns or 0) >= image_ns
        return has_odometry and (
            not self.topics.depth
            or any(stamp_ns > image_ns - _DEPTH_TOLERANCE_NS for stamp_ns, _ in depths)
        )

    def _frame(
        self, stamp_ns: int, message: Any, odometry: OdometryBuffer, depths: deque[tuple[int, Any]]
    ) -> Iterator[Frame]:
        try:
            image_rgb = image_from_message(message)
        except InputError as error:
            self.skipped.add(DAMAGED_IMAGE, str(error))
            return
        T_odom_base = odometry.pose_at(stamp_ns)
        if T_odom_base is None and self.topics.odom:
            self.skipped.add('no odometry at the stamp (image kept)', f'stamp {stamp_ns} ns')
        depth_m = self._depth(stamp_ns, depths)
        yield Frame(stamp_ns, image_rgb, self.camera, T_odom_base, depth_m)

    def _depth(self, stamp_ns: int, depths: deque[tuple[int, Any]]) -> Optional[Float32Array]:
        if not depths:
            return None
        nearest_ns, message = min(depths, key=lambda item: abs(item[0] - stamp_ns))
        if abs(nearest_ns - stamp_ns) >= _DEPTH_TOLERANCE_NS:
            return None
        try:
            return depth_from_message(message)
        except InputError as error:
            self.skipped.add('damaged depth (image kept)', str(error))
            return None

    def _take_odometry(self, odometry: OdometryBuffer, stamp_ns: int, message: Any) -> None:
        xyz, quat_xyzw = _pose_parts(message.pose.pose)
        try:
            if not odometry.add(stamp_ns, xyz, quat_xyzw):
                self.skipped.add('odometry stamp jumped back', f'stamp {stamp_ns} ns')
        except InputError as error:
            self.skipped.add('damaged odometry pose', str(error))

    def _take_truth(
        self, truth: list[tuple[int, FloatArray]], stamp_ns: int, message: Any
    ) -> None:
        if truth and stamp_ns < truth[-1][0] - NS_PER_S:
            # Keyframes of stamps that come twice may be judged by the wrong one of two poses.
            self.skipped.add('true pose stamp jumped back (pose kept)', f'stamp {stamp_ns} ns')
        try:
            truth.append((stamp_ns, pose_from_xyz_quat(*_true_pose_parts(message))))
        except InputError as error:
            self.skipped.add('damaged true pose', str(error))


def _true_pose_parts(message: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return position and quaternion of a message of one of ``_TRUTH_TYPES``."""
    if hasattr(message, 'transform'):
        t, q = message.transform.translation, message.transform.rotation
        return (t.x, t.y, t.z), (q.x, q.y, q.z, q.w)
    return _pose_parts(getattr(message.pose, 'pose', message.pose))


def _pose_parts(pose: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    p, q = pose.position, pose.orientation
    return (p.x, p.y, p.z), (q.x, q.y, q.z, q.w)
