# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the core's types: pure ``x_to_msg`` and ``x_from_msg`` functions."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any, Optional

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, PoseWithCovariance
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from netvlad_msgs.msg import KeyframeDescriptor, LoopClosureArray, PlaceId
from netvlad_msgs.msg import LoopClosure as LoopClosureMsg
from netvlad_ros.geometry import pose_from_xyz_quat, xyz_quat_from_pose
from netvlad_ros.types import (
    Camera,
    ClosureStatus,
    Float32Array,
    FloatArray,
    Keyframe,
    LoopClosure,
    PlaceVisit,
    RejectReason,
    TransformKind,
)

NS_PER_S = 1_000_000_000


def stamp_ns_from_msg(stamp: Time) -> int:
    """Return a stamp or duration in nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def stamp_ns_to_msg(stamp_ns: int) -> Time:
    """Return a stamp in nanoseconds as a message."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def header_to_msg(stamp_ns: int, frame_id: str) -> Header:
    """Return a header."""
    return Header(stamp=stamp_ns_to_msg(stamp_ns), frame_id=frame_id)


def pose_to_msg(T: Optional[FloatArray]) -> Pose:
    """Return a pose; None becomes all zeros, quaternion too, which no valid pose has."""
    pose = Pose()
    pose.orientation.w = 0.0
    if T is not None:
        xyz, quat = xyz_quat_from_pose(T)
        p, q = pose.position, pose.orientation
        p.x, p.y, p.z = map(float, xyz)
        q.x, q.y, q.z, q.w = map(float, quat)
    return pose


def pose_from_msg(pose: Pose) -> Optional[FloatArray]:
    """Return T (4, 4), or None for the all-zero pose.

    :raises InputError: the pose is not finite or its quaternion not of unit length.
    """
    p, q = pose.position, pose.orientation
    quat = (q.x, q.y, q.z, q.w)
    if quat == (0.0, 0.0, 0.0, 0.0):
        return None
    return pose_from_xyz_quat((p.x, p.y, p.z), quat)


def camera_to_msg(camera: Camera, stamp_ns: int) -> CameraInfo:
    """Return the calibration of a camera; K of zeros where it is uncalibrated."""
    message = CameraInfo(
        header=header_to_msg(stamp_ns, camera.frame_id),
        width=camera.size_wh[0],
        height=camera.size_wh[1],
        distortion_model=camera.distortion_model,
        d=camera.distortion.tolist(),
    )
    if camera.K is not None:
        message.k = camera.K.ravel()
        message.r = np.eye(3).ravel()
        message.p = np.hstack([camera.K, np.zeros((3, 1))]).ravel()
    return message


def image_to_msg(pixels: npt.NDArray[Any], encoding: str, camera: Camera, stamp_ns: int) -> Image:
    """Return an (H, W) or (H, W, C) array as an image message of the given encoding."""
    message = Image(
        header=header_to_msg(stamp_ns, camera.frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels.strides[0],
    )
    # An array of bytes is taken over whole; a list or an ndarray is checked byte by byte.
    message.data = array('B', np.ascontiguousarray(pixels).tobytes())
    return message


def closure_to_msg(
    closure: LoopClosure, frame_id: str, poses: Optional[dict[tuple[str, int], Pose]] = None
) -> LoopClosureMsg:
    """Return the message of one closure.

    :param frame_id: optical frame of the query camera.
    :param poses: messages of odometry poses by session and stamp, read and extended: making one
        costs a third of the whole, and the closures of a map share them.
    """
    query, match = closure.query, closure.match
    known = {} if poses is None else poses

    def odom_pose(keyframe: Keyframe) -> Pose:
        key = keyframe.session, keyframe.stamp_ns
        if key not in known:
            known[key] = pose_to_msg(keyframe.T_odom_base)
        return known[key]

    sec, nanosec = divmod(closure.latency_ns, NS_PER_S)
    transform = PoseWithCovariance(pose=pose_to_msg(closure.T_match_query))
    if closure.covariance is not None:
        transform.covariance = closure.covariance.ravel().astype(float)
    return LoopClosureMsg(
        header=header_to_msg(query.stamp_ns, frame_id),
        query_id=query.id,
        match_id=match.id,
        query_stamp=stamp_ns_to_msg(query.stamp_ns),
        match_stamp=stamp_ns_to_msg(match.stamp_ns),
        query_session=query.session,
        match_session=match.session,
        query_camera=query.camera,
        match_camera=match.camera,
        query_odom_pose=odom_pose(query),
        match_odom_pose=odom_pose(match),
        similarity=closure.similarity,
        probability=closure.probability,
        margin=closure.margin,
        consistency=closure.consistency,
        rank=closure.rank,
        status=int(closure.status),
        reject_reason=int(closure.reject_reason),
        transform_kind=int(closure.transform_kind),
        match_t_query=transform,
        num_matches=closure.num_matches,
        num_inliers=closure.num_inliers,
        place_id=match.place_id,
        model_id=closure.model_id,
        latency=Duration(sec=sec, nanosec=nanosec),
    )


def closure_from_msg(message: LoopClosureMsg) -> LoopClosure:
    """Return the closure of a message; of the query only what the message carries is known."""

    def keyframe(side: str) -> Keyframe:
        return Keyframe(
            id=getattr(message, f'{side}_id'),
            stamp_ns=stamp_ns_from_msg(getattr(message, f'{side}_stamp')),
            session=getattr(message, f'{side}_session'),
            camera=getattr(message, f'{side}_camera'),
            place_id=0,
            T_odom_base=pose_from_msg(getattr(message, f'{side}_odom_pose')),
        )

    kind = TransformKind(message.transform_kind)
    measured = kind is not TransformKind.NONE
    return LoopClosure(
        query=keyframe('query'),
        match=replace(keyframe('match'), place_id=message.place_id),
        similarity=message.similarity,
        model_id=message.model_id,
        margin=message.margin,
        probability=message.probability,
        consistency=message.consistency,
        rank=message.rank,
        status=ClosureStatus(message.status),
        reject_reason=RejectReason(message.reject_reason),
        transform_kind=kind,
        T_match_query=pose_from_msg(message.match_t_query.pose) if measured else None,
        covariance=(
            np.asarray(message.match_t_query.covariance).reshape(6, 6) if measured else None
        ),
        num_matches=message.num_matches,
        num_inliers=message.num_inliers,
        latency_ns=stamp_ns_from_msg(message.latency),
    )


def closures_to_msg(closures: tuple[LoopClosure, ...], frame_id: str) -> LoopClosureArray:
    """Return the closures of one query keyframe, at least one."""
    return LoopClosureArray(
        header=header_to_msg(closures[0].query.stamp_ns, frame_id),
        closures=[closure_to_msg(closure, frame_id) for closure in closures],
    )


def place_to_msg(keyframe: Keyframe, visit: PlaceVisit, frame_id: str) -> PlaceId:
    """Return the place of a keyframe; ``frame_id`` is the frame of its pose."""
    return PlaceId(
        header=header_to_msg(keyframe.stamp_ns, frame_id),
        keyframe_id=keyframe.id,
        place_id=visit.place_id,
        is_new=visit.is_new,
        visits=visit.visits,
        pose=pose_to_msg(keyframe.T_odom_base),
    )


def descriptor_to_msg(
    keyframe: Keyframe, descriptor: Float32Array, model_id: str, robot: str, frame_id: str
) -> KeyframeDescriptor:
    """Return the descriptor (D,) of a keyframe; ``frame_id`` is the optical frame."""
    return KeyframeDescriptor(
        header=header_to_msg(keyframe.stamp_ns, frame_id),
        keyframe_id=keyframe.id,
        session=keyframe.session,
        robot=robot,
        model_id=model_id,
        pose=pose_to_msg(keyframe.T_odom_base),
        data=descriptor.astype(np.float32),
    )
