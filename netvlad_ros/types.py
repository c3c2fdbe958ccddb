# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What flows through the pipeline: Frame -> Keyframe -> Candidate -> LoopClosure.

Poses are ``T_a_b`` (4, 4) float64 and map points of frame b into frame a. Time is integer
nanoseconds and always the sensor's stamp. Similarity is the inner product of unit vectors,
in [-1, 1], larger is more alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
import math
from typing import Optional

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

# Id of a query that is in no map: that of a read-only map, or of a question.
NOT_STORED = 2**64 - 1


class ClosureStatus(IntEnum):
    """How far a loop closure got; the values are those of netvlad_msgs/LoopClosure."""

    CANDIDATE = 0
    CONSISTENT = 1
    VERIFIED = 2
    REJECTED = 3


class RejectReason(IntEnum):
    """Why a loop closure was REJECTED; the values are those of netvlad_msgs/LoopClosure."""

    NONE = 0
    TOO_FEW_MATCHES = 1
    TOO_FEW_INLIERS = 2
    DEGENERATE_GEOMETRY = 3
    IMPLAUSIBLE_ODOMETRY = 4
    TIME_BUDGET = 5
    NO_IMAGE = 6


class TransformKind(IntEnum):
    """What ``T_match_query`` means; the values are those of netvlad_msgs/LoopClosure."""

    NONE = 0
    ROTATION_ONLY = 1
    UP_TO_SCALE = 2
    METRIC = 3


@dataclass(frozen=True)
class Camera:
    """A camera as its CameraInfo and the robot's static transforms describe it.

    :param name: tells the cameras of one robot apart; the optical frame's id by default.
    :param frame_id: optical frame (x right, y down, z forward).
    :param K: (3, 3) float64 intrinsics in pixels of an image of ``size_wh``; None if uncalibrated.
    :param distortion_model: plumb_bob, rational_polynomial, equidistant, or '' for none.
    :param distortion: (n,) float64 coefficients of that model.
    :param T_base_camera: (4, 4) pose of the optical frame in the robot's base; None if unknown.
    """

    name: str = 'camera'
    frame_id: str = 'camera_optical'
    size_wh: tuple[int, int] = (0, 0)
    K: Optional[FloatArray] = None
    distortion_model: str = ''
    distortion: FloatArray = field(default_factory=lambda: np.zeros(0))
    T_base_camera: Optional[FloatArray] = None


@dataclass(frozen=True)
class Frame:
    """One camera image with the odometry pose at its stamp.

    :param image_rgb: (H, W, 3) uint8 RGB.
    :param T_odom_base: (4, 4) pose of the base in the odometry frame; None without odometry.
    :param depth_m: (H, W) float32 metres registered to the image, 0 or NaN where unknown.
    """

    stamp_ns: int
    image_rgb: UInt8Array
    camera: Camera = field(default_factory=Camera)
    T_odom_base: Optional[FloatArray] = None
    depth_m: Optional[Float32Array] = None


@dataclass(frozen=True)
class Keyframe:
    """A stored frame: what the map knows of it, without its descriptor and image.

    :param id: unique in the map, rising in the order of insertion.
    :param session: UUID of the run that made it.
    :param camera: the camera's name.
    """

    id: int
    stamp_ns: int
    session: str
    camera: str
    place_id: int
    T_odom_base: Optional[FloatArray] = None


@dataclass(frozen=True)
class PlaceVisit:
    """The place that a keyframe belongs to.

    :param visits: number of separate visits to the place so far, this one included.
    """

    place_id: int
    is_new: bool
    visits: int


@dataclass(frozen=True)
class Candidate:
    """A keyframe that the search returned for a query, before any decision.

    :param similarity: inner product of the two unit descriptors.
    :param margin: similarity minus the best outside the match's neighbourhood, NaN if none is.
    :param normalised: similarity relative to that of neighbouring keyframes, NaN if unknown.
    :param rank: 0 for the most similar.
    """

    keyframe_id: int
    similarity: float
    margin: float = math.nan
    normalised: float = math.nan
    rank: int = 0


@dataclass(frozen=True)
class LoopClosure:
    """Two keyframes that show one place, with the evidence for it.

    :param probability: calibrated probability that the closure is right; NaN if uncalibrated.
    :param consistency: consecutive queries, this one included, whose matches move coherently.
    :param T_match_query: (4, 4) pose of the query camera's optical frame in the match camera's;
        metres if METRIC, unit length if UP_TO_SCALE, zero translation if ROTATION_ONLY.
    :param covariance: (6, 6) of the pose (x, y, z, rotation about X, Y, Z) as in
        geometry_msgs/PoseWithCovariance; m^2 and rad^2.
    :param verification_score: one number that ranks closures after geometry, larger is surer;
        NaN before verification. ``loop_closure/verification.py`` says what it is made of.
    :param latency_ns: from the arrival of the query frame to this decision.
    """

    query: Keyframe
    match: Keyframe
    similarity: float
    model_id: str
    margin: float = math.nan
    normalised: float = math.nan
    probability: float = math.nan
    consistency: int = 1
    rank: int = 0
    status: ClosureStatus = ClosureStatus.CANDIDATE
    reject_reason: RejectReason = RejectReason.NONE
    transform_kind: TransformKind = TransformKind.NONE
    T_match_query: Optional[FloatArray] = None
    covariance: Optional[FloatArray] = None
    num_matches: int = 0
    num_inliers: int = 0
    verification_score: float = math.nan
    latency_ns: int = 0
