# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which place a keyframe belongs to.

A keyframe whose best accepted match shows a known place joins that place. One without a match
stays in the place of the keyframe before it while the robot is still near the keyframe that
opened the place, and opens a new place otherwise.
"""

from __future__ import annotations

from typing import Optional

from netvlad_ros.config import PlaceConfig
from netvlad_ros.geometry import distance_m
from netvlad_ros.types import FloatArray, Frame, Keyframe


class PlaceTracker:
    """Decides the place of each new keyframe of one session."""

    def __init__(self, config: PlaceConfig) -> None:
        self._config = config
        self._place_id: Optional[int] = None
        self._T_odom_opening: Optional[FloatArray] = None

    def reset(self) -> None:
        """Forget the present place: the next keyframe without a match opens a new one."""
        self._place_id = None
        self._T_odom_opening = None

    def choose(self, frame: Frame, match: Optional[Keyframe]) -> Optional[int]:
        """Return the place id for a new keyframe, or None to open a new place.

        :param match: the best accepted match of the frame, None without one.
        """
        if match is not None:
            return match.place_id
        if (
            self._place_id is not None
            and self._T_odom_opening is not None
            and frame.T_odom_base is not None
            and distance_m(self._T_odom_opening, frame.T_odom_base) <= self._config.radius_m
        ):
            return self._place_id
        return None

    def entered(self, keyframe: Keyframe) -> None:
        """Note the keyframe that was just stored."""
        if keyframe.place_id != self._place_id:
            self._place_id = keyframe.place_id
            self._T_odom_opening = keyframe.T_odom_base
