# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ground truth: which pairs of keyframes show one place, and the true poses where known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import logging
from typing import Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.evaluation.protocol import Protocol
from netvlad_ros.geometry import interpolate
from netvlad_ros.types import FloatArray

_log = logging.getLogger(__name__)

Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

RIGHT, WRONG, NEITHER = np.int8(1), np.int8(0), np.int8(-1)
NS_PER_S = 1_000_000_000
# A base looks along its x axis (REP-103), an optical frame along its z axis.
_VIEW_AXIS = {'base': 0, 'camera': 2}
_ROWS_PER_BLOCK = 512


@dataclass(frozen=True)
class PoseTrack:
    """True poses by stamp.

    :param stamps_ns: (M,) rising.
    :param T_world_frame: (M, 4, 4).
    :param frame: 'camera' (optical frame) or 'base'.
    """

    stamps_ns: Int64Array
    T_world_frame: FloatArray
    frame: str = 'camera'

    def at(self, stamps_ns: Sequence[int], max_gap_s: float = 1.0) -> tuple[FloatArray, BoolArray]:
        """Return (N, 4, 4) poses at stamps and (N,) whether each is known.

        A stamp is known between two poses at most ``max_gap_s`` apart, or up to half of that
        before the first and after the last pose.
        """
        poses = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        known = np.zeros(len(stamps_ns), dtype=np.bool_)
        max_gap_ns = int(max_gap_s * NS_PER_S)
        for i, stamp_ns in enumerate(stamps_ns):
            after = int(np.searchsorted(self.stamps_ns, stamp_ns))
            if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
                poses[i], known[i] = self.T_world_frame[after], True
            elif after in (0, len(self.stamps_ns)):
                end = min(after, len(self.stamps_ns) - 1)
                poses[i] = self.T_world_frame[end]
                known[i] = abs(int(self.stamps_ns[end]) - stamp_ns) <= max_gap_ns // 2
            else:
                gap_ns = int(self.stamps_ns[after] - self.stamps_ns[after - 1])
                fraction = (stamp_ns - int(self.stamps_ns[after - 1])) / gap_ns
                before = self.T_world_frame[after - 1]
                poses[i] = interpolate(before, self.T_world_frame[after], fraction)
                known[i] = gap_ns <= max_gap_ns
        return poses, known


@dataclass(frozen=True)
class ListedRevisits:
    """Revisits as ``revisits.csv`` lists them, by index of the frame.

    :param stamps_ns: (F,) stamp of every frame, to find a keyframe's index.
    :param matches: right frames by query frame; a query not listed has no revisit.
    :param ignores: frames that are neither right nor wrong, by query frame.
    """

    stamps_ns: Int64Array
    matches: Mapping[int, frozenset[int]]
    ignores: Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class GroundTruth:
    """What is known of a recording; listed revisits go before poses where both exist."""

    poses: Optional[PoseTrack] = None
    listed: Optional[ListedRevisits] = None


@dataclass(frozen=True)
class Truth:
    """Ground truth of the keyframes of one run.

    :param labels: (N, N) int8 RIGHT, WRONG or NEITHER of query (row) and match (column).
    :param allowed: (N, N) pairs that count: the match is older by the protocol's gap.
    :param T_world_camera: (N, 4, 4), None where the camera's true pose is not known.
    :param positions_m: (N, 3) for drawing, None without poses.
    """

    labels: Int8Array
    allowed: BoolArray
    T_world_camera: Optional[FloatArray] = None
    positions_m: Optional[FloatArray] = None
    known: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))


def allowed_pairs(stamps_ns: Sequence[int], gap_s: float) -> BoolArray:
    """Return (N, N): the column is older than the row, by at least ``gap_s``."""
    stamps = np.asarray(stamps_ns, dtype=np.int64)
    gap_ns = max(1, round(gap_s * NS_PER_S))
    allowed = np.empty((len(stamps), len(stamps)), dtype=np.bool_)
    for start in range(0, len(stamps), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        allowed[rows] = stamps[rows, None] - stamps[None] >= gap_ns
    return allowed


def labels_from_poses(
    positions_m: FloatArray, views: FloatArray, known: BoolArray, protocol: Protocol
) -> Int8Array:
    """Return (N, N) labels from positions (N, 3) and unit viewing directions (N, 3).

    A pair with an unknown pose is NEITHER.
    """
    count = len(positions_m)
    labels = np.full((count, count), WRONG, dtype=np.int8)
    for start in range(0, count, _ROWS_PER_BLOCK):
        rows = slice(start, min(start + _ROWS_PER_BLOCK, count))
        away_m = np.linalg.norm(positions_m[rows, None] - positions_m[None], axis=-1)
        cosine = np.clip(views[rows] @ views.T, -1.0, 1.0)
        angle_deg = np.degrees(np.arccos(cosine))
        near = (away_m <= protocol.ignore_radius_m) & (angle_deg <= protocol.ignore_angle_deg)
        labels[rows][near] = NEITHER
        right = (away_m <= protocol.gt_radius_m) & (angle_deg <= protocol.gt_angle_deg)
        labels[rows][right] = RIGHT
    labels[~known, :] = NEITHER
    labels[:, ~known] = NEITHER
    return labels


def labels_from_list(listed: ListedRevisits, stamps_ns: Sequence[int]) -> Int8Array:
    """Return (N, N) labels of keyframes that are frames of the list."""
    # Of frames with one stamp the first is served, so it is the one that a keyframe is of.
    frame_of = {int(s): i for i, s in reversed(list(enumerate(listed.stamps_ns)))}
    keyframe_of = {frame_of[int(s)]: i for i, s in enumerate(stamps_ns) if int(s) in frame_of}
    labels = np.full((len(stamps_ns), len(stamps_ns)), WRONG, dtype=np.int8)
    for lists, label in ((listed.ignores, NEITHER), (listed.matches, RIGHT)):
        for query, matches in lists.items():
            if query in keyframe_of:
                columns = [keyframe_of[m] for m in sorted(matches) if m in keyframe_of]
                labels[keyframe_of[query], columns] = label
    return labels


def truth_of_keyframes(
    ground_truth: GroundTruth,
    stamps_ns: Sequence[int],
    protocol: Protocol,
    exclude_s: float,
    T_base_camera: Optional[FloatArray] = None,
    times_ns: Optional[Sequence[int]] = None,
) -> Optional[Truth]:
    """Return the truth of keyframes with the given stamps, None where nothing is known.

    :param exclude_s: what the search leaves out; the mask is the longer of this and the gap.
    :param T_base_camera: turns true base poses into camera poses; None if unknown.
    :param times_ns: as ``Replay`` has them, to mask by; the stamps if not given.
    """
    gap_s = max(protocol.gt_gap_s, exclude_s)
    allowed = allowed_pairs(stamps_ns if times_ns is None else times_ns, gap_s)
    listed_labels = None
    if ground_truth.listed is not None:
        listed_labels = labels_from_list(ground_truth.listed, stamps_ns)
        right = listed_labels == RIGHT
        if masked := int((right & ~allowed).sum()):
            _log.warning(
                '%d of %d listed revisits do not count: they are less than %g s older than the '
                'query (the longer of gt_gap_s %g s and exclude_s %g s)',
                masked, right.sum(), gap_s, protocol.gt_gap_s, exclude_s,
            )  # fmt: skip
    if ground_truth.poses is None:
        return None if listed_labels is None else Truth(listed_labels, allowed)
    track = ground_truth.poses
    T_world_frame, known = track.at(stamps_ns)
    frame = track.frame
    if frame == 'base' and T_base_camera is not None:
        T_world_frame, frame = T_world_frame @ T_base_camera, 'camera'
    positions_m = T_world_frame[:, :3, 3]
    if listed_labels is not None:
        labels = listed_labels
    else:
        views = T_world_frame[:, :3, _VIEW_AXIS[frame]]
        labels = labels_from_poses(positions_m, views, known, protocol)
    camera_poses = T_world_frame if frame == 'camera' else None
    return Truth(labels, allowed, camera_poses, positions_m, known)
