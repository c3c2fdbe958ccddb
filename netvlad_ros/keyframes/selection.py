# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decides which frames become keyframes: enough travel, rotation or time since the last one."""

from __future__ import annotations

import logging
from typing import Optional

from netvlad_ros.config import KeyframeConfig
from netvlad_ros.geometry import distance_m, rotation_angle_deg
from netvlad_ros.types import Frame

_logger = logging.getLogger(__name__)
_NS = 1e9


class KeyframeSelector:
    """Accepts a frame that has moved or waited enough since the last accepted one.

    Without odometry on either of the two frames, time alone decides. Frames of several cameras
    need one selector each.
    """

    def __init__(self, config: KeyframeConfig | None = None) -> None:
        self._config = config or KeyframeConfig()
        self._last: Optional[Frame] = None

    def reset(self) -> None:
        """Forget the last keyframe, so that the next frame is accepted whatever its stamp."""
        self._last = None

    def accepts(self, frame: Frame) -> bool:
        """Return True and remember the frame if it is to be a keyframe.

        A stamp that is not newer than the last keyframe's (a repeated message, a looped bag) is
        never accepted; call ``reset`` when the clock was set back on purpose.
        """
        if self._last is not None and not self._is_due(self._last, frame):
            return False
        self._last = frame
        return True

    def _is_due(self, last: Frame, frame: Frame) -> bool:
        config = self._config
        elapsed_s = (frame.stamp_ns - last.stamp_ns) / _NS
        if elapsed_s <= 0.0:
            _logger.debug('stamp %d is not newer than %d', frame.stamp_ns, last.stamp_ns)
            return False
        if config.policy == 'every_frame':
            return True
        if elapsed_s < config.min_interval_s:
            return False
        if frame.T_odom_base is None or last.T_odom_base is None:
            return elapsed_s >= config.no_odom_interval_s
        return (
            distance_m(last.T_odom_base, frame.T_odom_base) >= config.min_distance_m
            or rotation_angle_deg(last.T_odom_base, frame.T_odom_base) >= config.min_angle_deg
        )
