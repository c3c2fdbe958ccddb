# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether odometry allows a closure: what it allows grows with the distance travelled.

Off with ``gate_drift`` 0, across sessions, and for everything before a declared kidnap:
there odometry says nothing of where the robot is.
"""

from __future__ import annotations

from typing import Optional

from netvlad_ros.config import ConsistencyConfig
from netvlad_ros.geometry import distance_m
from netvlad_ros.types import FloatArray, Keyframe


class OdometryGate:
    """Knows the path length at every keyframe of the running session.

    Not thread-safe: one instance follows one session.
    """

    def __init__(self, config: ConsistencyConfig) -> None:
        self._config = config
        self._travelled_m: dict[int, float] = {}
        self._session = ''
        self._last: Optional[FloatArray] = None
        self._length_m = 0.0

    def reset(self) -> None:
        """Trust no odometry from before now: a new session, a declared kidnap."""
        self._travelled_m = {}
        self._last = None
        self._length_m = 0.0

    def add(self, keyframe: Keyframe) -> None:
        """Take the next keyframe, in order; another session than the last resets the gate."""
        if keyframe.session != self._session:
            self.reset()
            self._session = keyframe.session
        if keyframe.T_odom_base is None:
            return
        if self._last is not None:
            self._length_m += distance_m(self._last, keyframe.T_odom_base)
        self._last = keyframe.T_odom_base
        self._travelled_m[keyframe.id] = self._length_m

    def allows(self, query: Keyframe, match: Keyframe) -> bool:
        """Tell whether the two may be one place, by odometry and the drift it may have."""
        travelled = self._travelled_m
        if self._config.gate_drift == 0.0 or query.session != match.session:
            return True
        if query.id not in travelled or match.id not in travelled:
            return True
        if query.T_odom_base is None or match.T_odom_base is None:
            return True
        apart_m = distance_m(query.T_odom_base, match.T_odom_base)
        path_m = abs(travelled[query.id] - travelled[match.id])
        return apart_m <= self._config.gate_base_m + self._config.gate_drift * path_m
