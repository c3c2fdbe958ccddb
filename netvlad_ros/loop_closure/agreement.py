# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether measured poses put the robot in one place; of two that do not, the weaker is wrong.

A façade that repeats gives a false pose with many inliers, off by a multiple of its period. The
other matches of the same query, and the closures of the queries just before, say so: odometry
between neighbouring keyframes is exact enough to compare. The idea is that of pairwise consistent
measurements (Mangelson et al. 2018), without its search: the nearest stronger one decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from netvlad_ros.geometry import distance_m, inverse, rotation_angle_deg
from netvlad_ros.types import (
    ClosureStatus,
    FloatArray,
    Keyframe,
    LoopClosure,
    RejectReason,
    TransformKind,
)

# Measured poses and odometry may be off by this part of their lengths.
TOLERANCE = 0.05
TOLERANCE_M = 0.1
TOLERANCE_DEG, TOLERANCE_DEG_PER_M = 10.0, 0.5
# Share of a closure's score that a witness against it needs: between equals neither is trusted.
WEIGHT = 0.5
# Odometry over a longer way proves nothing.
MAX_WAY_M = 50.0
WITNESSES_KEPT = 10
# After so many in a row that agree with each other it was odometry: a lift, a robot carried away.
DOUBTED_QUERIES = 4

CameraInOdom = Callable[[Keyframe], Optional[FloatArray]]
Way = Callable[[Keyframe, Keyframe], float]
_Same = Callable[['_Witness', '_Witness', float], bool]


@dataclass(frozen=True)
class _Witness:
    """A measured closure with the cameras of its two keyframes, each (4, 4) in its odometry."""

    closure: LoopClosure
    T_match_query: FloatArray
    T_odom_query: FloatArray
    T_odom_match: FloatArray

    @property
    def is_metric(self) -> bool:
        return self.closure.transform_kind is TransformKind.METRIC


class PoseAgreement:
    """Compares measured closures with each other and with those of the last queries.

    Not thread-safe: one instance follows one camera.

    :param camera_in_odom: (4, 4) of a keyframe's camera in its odometry, None where unknown.
    :param way_m: how far the robot went between two keyframes, infinite where unknown.
    """

    def __init__(self, camera_in_odom: CameraInOdom, way_m: Way) -> None:
        self._camera_in_odom = camera_in_odom
        self._way_m = way_m
        self._recent: deque[_Witness] = deque(maxlen=WITNESSES_KEPT)
        self._doubted: deque[_Witness] = deque(maxlen=DOUBTED_QUERIES)

    def reset(self) -> None:
        """Forget the closures so far: odometry does not lead there any more."""
        self._recent.clear()
        self._doubted.clear()

    def judged(self, closures: Sequence[LoopClosure]) -> list[LoopClosure]:
        """Return the closures of one query in their order, the contradicted ones REJECTED."""
        out = list(closures)
        # A match without an image was not checked: its score is NaN and must not break the order.
        scores = np.nan_to_num([closure.verification_score for closure in closures])
        order = np.argsort(-scores, kind='stable')
        measured = [(i, w) for i in order if (w := self._witness(closures[i])) is not None]
        strongest: Optional[_Witness] = None
        for rank, (index, witness) in enumerate(measured):
            others = [*self._recent, *([strongest] if strongest else [])]
            denied = self._contradicted(witness, others)
            if denied and not (rank == 0 and self._overrules(witness)):
                out[index] = replace(
                    closures[index], status=ClosureStatus.REJECTED, T_match_query=None,
                    covariance=None, transform_kind=TransformKind.NONE,
                    reject_reason=RejectReason.IMPLAUSIBLE_ODOMETRY,
                )
            elif strongest is None:
                strongest = witness
                self._doubted.clear()
        if strongest is not None:
            self._recent.append(strongest)
        return out

    def _overrules(self, witness: _Witness) -> bool:
        """Tell whether so many queries in a row were rejected that odometry must be wrong."""
        doubted = list(self._doubted)
        self._doubted.append(witness)
        if len(doubted) < DOUBTED_QUERIES or any(
            self._contradicted(witness, [other]) for other in doubted
        ):
            return False
        self._recent.clear()
        return True

    def _witness(self, closure: LoopClosure) -> Optional[_Witness]:
        T = closure.T_match_query
        query, match = (self._camera_in_odom(k) for k in (closure.query, closure.match))
        if T is None or query is None or match is None:
            return None
        return _Witness(closure, T, query, match)

    def _contradicted(self, witness: _Witness, others: Sequence[_Witness]) -> bool:
        """Tell whether the nearest witness of some weight denies the rotation or the place."""
        score = WEIGHT * witness.closure.verification_score
        heard = [
            (self._way_between_m(other, witness), other)
            for other in others
            if other.closure.verification_score >= score
        ]
        metric = [pair for pair in heard if pair[1].is_metric] if witness.is_metric else []
        return _denied(heard, witness, _same_rotation) or _denied(metric, witness, _same_place)

    def _way_between_m(self, a: _Witness, b: _Witness) -> float:
        return self._way_m(a.closure.query, b.closure.query) + self._way_m(
            a.closure.match, b.closure.match
        )


def _denied(heard: Sequence[tuple[float, _Witness]], witness: _Witness, same: _Same) -> bool:
    if not heard:
        return False
    way_m, nearest = min(heard, key=lambda pair: pair[0])
    return way_m <= MAX_WAY_M and not same(witness, nearest, way_m)


def _same_rotation(a: _Witness, b: _Witness, way_m: float) -> bool:
    off_deg = rotation_angle_deg(a.T_match_query, _expected(a, b))
    return off_deg <= TOLERANCE_DEG + TOLERANCE_DEG_PER_M * way_m


def _same_place(a: _Witness, b: _Witness, way_m: float) -> bool:
    lengths_m = way_m + sum(float(np.linalg.norm(w.T_match_query[:3, 3])) for w in (a, b))
    return distance_m(a.T_match_query, _expected(a, b)) <= TOLERANCE_M + TOLERANCE * lengths_m


def _expected(a: _Witness, b: _Witness) -> FloatArray:
    """Return the pose of a's query in a's match as b and odometry have it."""
    return (
        inverse(a.T_odom_match) @ b.T_odom_match
        @ b.T_match_query @ inverse(b.T_odom_query) @ a.T_odom_query
    )  # fmt: skip
