# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What RViz shows: the keyframes of this run as a path, its closures as lines by status.

A drawing is bounded: it is made and sent by the executor, which odometry and images share.
"""

from __future__ import annotations

from collections.abc import Sequence
import threading
from typing import Optional

from geometry_msgs.msg import Point, PoseStamped
from nav_msgs.msg import Path
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from netvlad_ros.ros.conversions import header_to_msg, pose_to_msg
from netvlad_ros.types import ClosureStatus, FloatArray, Keyframe, LoopClosure

LINE_WIDTH_M = 0.05
# Drawing as many takes about 30 ms. Past it every second keyframe or closure is left out.
MAX_DRAWN = 2000
COLOURS = {
    ClosureStatus.CANDIDATE: ColorRGBA(r=1.0, g=0.75, b=0.0, a=0.8),
    ClosureStatus.CONSISTENT: ColorRGBA(r=0.2, g=0.6, b=1.0, a=0.9),
    ClosureStatus.VERIFIED: ColorRGBA(r=0.1, g=0.8, b=0.3, a=1.0),
    ClosureStatus.REJECTED: ColorRGBA(r=0.8, g=0.1, b=0.1, a=0.4),
}


class Trace:
    """The drawn part of one session: keyframes and closures that have odometry poses.

    Of each query the best closure is drawn: a verified one if there is one, never a rejected one
    before another. The worker adds, the executor draws; both may do so at any time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._poses: list[PoseStamped] = []
        self._closures: dict[int, LoopClosure] = {}
        self._session = ''
        self._frame_id = ''
        self._changed = False

    def add(self, keyframe: Keyframe, frame_id: str) -> None:
        """Append a keyframe; another session starts a new drawing."""
        with self._lock:
            if keyframe.session != self._session:
                self._session = keyframe.session
                self._poses = []
                self._closures = {}
                # What was drawn of the session before is taken away.
                self._changed = bool(self._frame_id)
            if keyframe.T_odom_base is None:
                return
            self._frame_id = frame_id
            self._poses.append(
                PoseStamped(
                    header=header_to_msg(keyframe.stamp_ns, frame_id),
                    pose=pose_to_msg(keyframe.T_odom_base),
                )
            )
            if len(self._poses) > MAX_DRAWN:
                self._poses = self._poses[::-2][::-1]
            self._changed = True

    def add_closures(self, closures: Sequence[LoopClosure]) -> None:
        """Take the closures of one query, in place of what was known of it."""
        with self._lock:
            drawable = [
                c
                for c in closures
                if c.query.T_odom_base is not None
                and c.match.T_odom_base is not None
                and c.match.session == self._session
            ]
            if not drawable:
                return
            best = max(
                drawable,
                key=lambda c: (
                    c.status is ClosureStatus.VERIFIED,
                    c.status is not ClosureStatus.REJECTED,
                    -c.rank,
                ),
            )
            self._closures[best.query.stamp_ns] = best
            if len(self._closures) > MAX_DRAWN:
                self._closures = dict(list(self._closures.items())[::-2][::-1])
            self._changed = True

    def drawing(self) -> Optional[tuple[Path, MarkerArray]]:
        """Return the path and one line list per status, or None if nothing has changed."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            poses, closures = list(self._poses), list(self._closures.values())
        header = poses[-1].header if poses else Header(frame_id=self._frame_id)
        markers = [_lines(status, closures, header) for status in COLOURS]
        return Path(header=header, poses=poses), MarkerArray(markers=markers)


def _lines(status: ClosureStatus, closures: list[LoopClosure], header: Header) -> Marker:
    marker = Marker(
        header=header,
        ns='loop_closures',
        id=int(status),
        type=Marker.LINE_LIST,
        action=Marker.ADD,
        color=COLOURS[status],
    )
    marker.pose.orientation.w = 1.0
    marker.scale.x = LINE_WIDTH_M
    for closure in closures:
        if closure.status is status:
            for T in (closure.query.T_odom_base, closure.match.T_odom_base):
                assert T is not None
                marker.points.append(_point(T))
    if not marker.points:
        marker.action = Marker.DELETE
    return marker


def _point(T: FloatArray) -> Point:
    x, y, z = map(float, T[:3, 3])
    return Point(x=x, y=y, z=z)
