# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ground truth: which pairs of keyframes show one place, and the true poses where known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
# What is said of pairs: indices of queries and of matches, which broadcast, give an array.
PairLabels = Callable[[Int64Array, Int64Array], Int8Array]
PairMask = Callable[[Int64Array, Int64Array], BoolArray]


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
    """Ground truth of the N keyframes of one run.

    :param labels: tells RIGHT, WRONG or NEITHER of pairs of query and match.
    :param allowed: tells which pairs count: the match is older by the protocol's gap.
    :param T_world_camera: (N, 4, 4), None where the camera's true pose is not known.
    :param positions_m: (N, 3) for drawing, None without poses.
    """

    labels: PairLabels
    allowed: PairMask
    T_world_camera: Optional[FloatArray] = None
    positions_m: Optional[FloatArray] = None
    known: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))


def allowed_pairs(times_ns: Sequence[int], gap_s: float) -> PairMask:
    """Return what tells that a match is older than its query, by at least ``gap_s``."""
    times = np.asarray(times_ns, dtype=np.int64)
    gap_ns = max(1, round(gap_s * NS_PER_S))
    return lambda queries, matches: np.asarray(times[queries] - times[matches] >= gap_ns)


def labels_from_poses(
    positions_m: FloatArray, views: FloatArray, known: BoolArray, protocol: Protocol
) -> PairLabels:
    """Return the labels by positions (N, 3) and unit viewing directions (N, 3).

    A pair with an unknown pose is NEITHER.
    """

    def labels_of(queries: Int64Array, matches: Int64Array) -> Int8Array:
        away_m = np.sqrt(sum((p[queries] - p[matches]) ** 2 for p in positions_m.T))
        cosine = np.clip(sum(v[queries] * v[matches] for v in views.T), -1.0, 1.0)
        angle_deg = np.degrees(np.arccos(cosine))
        labels = np.full(away_m.shape, WRONG, dtype=np.int8)
        near = (away_m <= protocol.ignore_radius_m) & (angle_deg <= protocol.ignore_angle_deg)
        labels[near] = NEITHER
        right = (away_m <= protocol.gt_radius_m) & (angle_deg <= protocol.gt_angle_deg)
        labels[right] = RIGHT
        labels[~(known[queries] & known[matches])] = NEITHER
        return labels

    return labels_of


def labels_from_list(right: Int64Array, ignored: Int64Array, count: int) -> PairLabels:
    """Return the labels of ``count`` keyframes by two lists of pairs, as of ``listed_pairs``."""
    right_codes, ignored_codes = (np.sort(q * count + m) for q, m in (right, ignored))

    def labels_of(queries: Int64Array, matches: Int64Array) -> Int8Array:
        codes = queries * count + matches
        labels = np.full(codes.shape, WRONG, dtype=np.int8)
        labels[_is_in(ignored_codes, codes)] = NEITHER
        labels[_is_in(right_codes, codes)] = RIGHT
        return labels

    return labels_of


def _is_in(rising: Int64Array, values: Int64Array) -> BoolArray:
    """Tell which values are in a rising array."""
    if not len(rising):
        return np.zeros(values.shape, dtype=np.bool_)
    places = np.searchsorted(rising, values)
    return np.asarray(rising[np.minimum(places, len(rising) - 1)] == values)


def listed_pairs(
    listed: ListedRevisits, stamps_ns: Sequence[int]
) -> tuple[Int64Array, Int64Array]:
    """Return (2, P) queries and matches of the listed pairs: the right, and the ignored ones."""
    # Of frames with one stamp the first is served, so it is the one that a keyframe is of.
    frame_of = {int(s): i for i, s in reversed(list(enumerate(listed.stamps_ns)))}
    keyframe_of = {frame_of[int(s)]: i for i, s in enumerate(stamps_ns) if int(s) in frame_of}

    def pairs(lists: Mapping[int, frozenset[int]]) -> Int64Array:
        found = [
            (keyframe_of[query], keyframe_of[match])
            for query, matches in lists.items()
            for match in matches
            if query in keyframe_of and match in keyframe_of
        ]
        return np.asarray(found, dtype=np.int64).reshape(-1, 2).T

    return pairs(listed.matches), pairs(listed.ignores)


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
        right, ignored = listed_pairs(ground_truth.listed, stamps_ns)
        listed_labels = labels_from_list(right, ignored, len(stamps_ns))
        if masked := int((~allowed(*right)).sum()):
            _log.warning(
                '%d of %d listed revisits do not count: they are less than %g s older than the '
                'query (the longer of gt_gap_s %g s and exclude_s %g s)',
                masked, right.shape[1], gap_s, protocol.gt_gap_s, exclude_s,
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
