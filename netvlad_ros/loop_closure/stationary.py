# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""No repeated closures while the robot stands still."""

from __future__ import annotations

from typing import Optional

from netvlad_ros.config import ConsistencyConfig
from netvlad_ros.geometry import distance_m, rotation_angle_deg
from netvlad_ros.types import FloatArray


class StationaryFilter:
    """Lets a closure pass only after motion since the last one that passed.

    Without odometry every closure passes: keyframe selection is then by time, and nothing tells
    a robot that waits from one that drives. Not thread-safe: one instance follows one session.
    """

    def __init__(self, config: ConsistencyConfig) -> None:
        self._config = config
        self._T_odom_base: Optional[FloatArray] = None

    def reset(self) -> None:
        """Forget the last closure: a new session, a declared kidnap."""
        self._T_odom_base = None

    def passes(self, T_odom_base: Optional[FloatArray]) -> bool:
        """Tell whether the robot moved or turned enough since the last closure."""
        last = self._T_odom_base
        distance_limit = self._config.stationary_distance_m
        angle_limit = self._config.stationary_angle_deg
        if last is None or T_odom_base is None or 0.0 in (distance_limit, angle_limit):
            return True
        return (
            distance_m(last, T_odom_base) >= distance_limit
            or rotation_angle_deg(last, T_odom_base) >= angle_limit
        )

    def closed(self, T_odom_base: Optional[FloatArray]) -> None:
        """Note where the robot was when a closure passed all other checks."""
        self._T_odom_base = T_odom_base
