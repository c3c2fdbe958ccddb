# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The slow path: geometry of all candidates of a query, and a pose for the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import math
from typing import Optional

import numpy as np

from netvlad_ros.config import VerificationConfig
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure.agreement import PoseAgreement
from netvlad_ros.loop_closure.verification import Checked, Verifier
from netvlad_ros.loop_closure.view import View
from netvlad_ros.loop_closure.view_store import ViewStore
from netvlad_ros.types import (
    NOT_STORED,
    ClosureStatus,
    FloatArray,
    Frame,
    Keyframe,
    LoopClosure,
)

# Past this score geometry has answered, and what retrieval found unlikely is not looked at.
CERTAIN_SCORE = 32.0
# Reading the poses of more keyframes takes too long, and odometry is not trusted so far.
MAX_WAY_KEYFRAMES = 200


class ClosureCheck:
    """Answers on the closures of one query after the other.

    Not thread-safe: one instance follows one camera.

    :param keyframes: returns those of the given ids that still exist.
    """

    def __init__(
        self,
        keyframe_map: KeyframeMap,
        keyframes: Callable[[Sequence[int]], list[Keyframe]],
        config: VerificationConfig,
    ) -> None:
        self._keyframes = keyframes
        self._verifier = Verifier(config)
        self._views = ViewStore(keyframe_map, self._verifier.extractor, config)
        self._agreement = PoseAgreement(self._camera_in_odom, self._way_m)

    def reset(self) -> None:
        """Forget the closures so far: another run, or a declared kidnap."""
        self._agreement.reset()

    def judged(
        self,
        keyframe: Keyframe,
        frame: Frame,
        closures: Iterable[LoopClosure],
        published: set[int],
        allows: Callable[[Keyframe], bool],
    ) -> list[LoopClosure]:
        """Return the answers that are to be published, in the order of the closures.

        :param published: ids of the matches that need an answer, whatever it is.
        :param allows: whether a match may be the query's place by odometry; asked of a match
            that is not published and beats them all.
        """
        query = self._views.add(keyframe.id, frame)
        closures = list(closures)
        best_similarity = max((closure.similarity for closure in closures), default=-1.0)
        checked: list[Checked] = []
        for closure in closures:
            is_certain = any(_score(answer) >= CERTAIN_SCORE for answer in checked)
            if closure.match.id in published or not is_certain:
                match = self._views.get(closure.match)
                checked.append(self._verifier.check(closure, query, match, best_similarity))
        # What was not published needs to beat even the rejected and the impossible: where those
        # score higher, geometry is of two minds. They take no pose from what was published.
        strongest = max(checked, key=_score, default=None)
        verified = [
            answer
            for answer in checked
            if answer.closure.status is ClosureStatus.VERIFIED
            and (
                answer.closure.match.id in published
                or (answer is strongest and allows(answer.closure.match))
            )
        ]
        best = max(verified, key=_score, default=None)
        judged = self._agreement.judged([
            self._measured(answer, query) if answer is best else answer.closure
            for answer in checked
            if answer is best or answer.closure.match.id in published
        ])
        # Nobody has heard of what was not published: there is nothing to take back.
        return [
            closure for closure in judged
            if closure.match.id in published or closure.status is ClosureStatus.VERIFIED
        ]

    def _measured(self, checked: Checked, query: View) -> LoopClosure:
        closure = checked.closure
        in_map = closure.query.id != NOT_STORED
        return self._verifier.measure(
            checked,
            query,
            self._views.get(closure.match),
            self._views.neighbours(closure.query) if in_map else (),
            self._views.neighbours(closure.match),
        )

    def _camera_in_odom(self, keyframe: Keyframe) -> Optional[FloatArray]:
        T_base_camera = self._views.get(keyframe).camera.T_base_camera
        if keyframe.T_odom_base is None or T_base_camera is None:
            return None
        return keyframe.T_odom_base @ T_base_camera

    def _way_m(self, a: Keyframe, b: Keyframe) -> float:
        """Return how far the robot went between two keyframes, infinite where it is unknown."""
        if (a.session, a.stamp_ns) == (b.session, b.stamp_ns):
            return 0.0
        ids = range(min(a.id, b.id), max(a.id, b.id) + 1)
        if a.session != b.session or NOT_STORED in (a.id, b.id) or len(ids) > MAX_WAY_KEYFRAMES:
            return math.inf
        poses = [k.T_odom_base for k in self._keyframes(ids) if k.session == a.session]
        positions_m = np.reshape([T[:3, 3] for T in poses if T is not None], (-1, 3))
        return float(np.linalg.norm(np.diff(positions_m, axis=0), axis=1).sum())


def _score(checked: Checked) -> float:
    score = checked.closure.verification_score
    return 0.0 if math.isnan(score) else score
