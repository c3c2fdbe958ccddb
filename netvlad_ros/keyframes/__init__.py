# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""When a frame becomes a keyframe; the durable map of keyframes; the index that searches it."""

from netvlad_ros.config import MapConfig
from netvlad_ros.keyframes.map import KeyframeMap
from netvlad_ros.keyframes.opening import is_map
from netvlad_ros.keyframes.records import Exclusion, Neighbour, Session
from netvlad_ros.keyframes.selection import KeyframeSelector

__all__ = [
    'Exclusion', 'KeyframeMap', 'KeyframeSelector', 'MapConfig', 'Neighbour', 'Session', 'is_map',
]  # fmt: skip
