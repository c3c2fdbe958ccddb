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

from netvlad_ros.geometry import inverse, rotation_angle_deg
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

CameraInOdom = Callable[[Keyframe], Optional[FloatArray]]
Way = Callable[[Keyframe, Keyframe], float]


@dataclass(frozen=True)
class _Witness:
    """A METRIC closure with the cameras of its two keyframes, each (4, 4) in its odometry."""

    closure: LoopClosure
    T_odom_query: FloatArray
    T_odom_match: FloatArray


class PoseAgreement:
    """Compares METRIC closures with each other and with those of the last queries.

    Not thread-safe: one instance follows one camera.

    :param camera_in_odom: (4, 4) of a keyframe's camera in its odometry, None where unknown.
    :param way_m: how far the robot went between two keyframes, infinite where unknown.
    """

    def __init__(self, camera_in_odom: CameraInOdom, way_m: Way) -> None:
        self._camera_in_odom = camera_in_odom
        self._way_m = way_m
        self._recent: deque[_Witness] = deque(maxlen=WITNESSES_KEPT)

    def reset(self) -> None:
        """Forget the closures so far: odometry does not lead there any more."""
        self._recent.clear()

    def judged(self, closures: Sequence[LoopClosure]) -> list[LoopClosure]:
        """Return the closures of one query in their order, the contradicted ones REJECTED."""
        order = sorted(range(len(closures)), key=lambda i: -closures[i].verification_score)
        out, strongest = list(closures), None
        for index in order:
            witness = self._witness(closures[index])
            if witness is None:
                continue
            others = [*self._recent, *([strongest] if strongest else [])]
            if self._contradicted(witness, others):
                out[index] = replace(
                    closures[index], status=ClosureStatus.REJECTED, T_match_query=None,
                    covariance=None, transform_kind=TransformKind.NONE,
                    reject_reason=RejectReason.IMPLAUSIBLE_ODOMETRY,
                )
            else:
                strongest = strongest or witness
        if strongest is not None:
            self._recent.append(strongest)
        return out

    def _witness(self, closure: LoopClosure) -> Optional[_Witness]:
        if closure.transform_kind is not TransformKind.METRIC:
            return None
        query, match = (self._camera_in_odom(k) for k in (closure.query, closure.match))
        return None if query is None or match is None else _Witness(closure, query, match)

    def _contradicted(self, witness: _Witness, others: Sequence[_Witness]) -> bool:
        """Tell whether the nearest witness of some weight says otherwise."""
        score = WEIGHT * witness.closure.verification_score
        stronger = [o for o in others if o.closure.verification_score >= score]
        ways_m = [
            self._way_m(other.closure.query, witness.closure.query)
            + self._way_m(other.closure.match, witness.closure.match)
            for other in stronger
        ]
        way_m = min(ways_m, default=np.inf)
        return way_m <= MAX_WAY_M and not _agree(witness, stronger[ways_m.index(way_m)], way_m)


def _agree(a: _Witness, b: _Witness, way_m: float) -> bool:
    """Tell whether two closures fit the odometry between their queries and their matches."""
    T_a, T_b = a.closure.T_match_query, b.closure.T_match_query
    assert T_a is not None and T_b is not None
    expected = (
        inverse(a.T_odom_match) @ b.T_odom_match @ T_b @ inverse(b.T_odom_query) @ a.T_odom_query
    )
    lengths_m = way_m + sum(float(np.linalg.norm(T[:3, 3])) for T in (T_a, T_b))
    off_m = float(np.linalg.norm((inverse(T_a) @ expected)[:3, 3]))
    return (
        off_m <= TOLERANCE_M + TOLERANCE * lengths_m
        and rotation_angle_deg(T_a, expected) <= TOLERANCE_DEG + TOLERANCE_DEG_PER_M * way_m
    )
