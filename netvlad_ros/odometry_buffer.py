# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A bounded buffer of odometry poses that answers at the stamp of an image."""

from __future__ import annotations

from bisect import bisect_left
from typing import Optional

import numpy.typing as npt

from netvlad_ros.geometry import interpolate, pose_from_xyz_quat
from netvlad_ros.types import FloatArray

NS_PER_S = 1_000_000_000


class OdometryBuffer:
    """Poses ``T_odom_base`` by stamp: linear position and slerp rotation between neighbours.

    :param max_age_s: poses older than this before the newest one are forgotten.
    :param max_gap_s: two neighbours further apart than this are not interpolated between: the
        odometry had stopped.
    :param jump_s: a stamp that goes back by more than this is a jump in time, by less a message
        that was overtaken on its way.
    """

    def __init__(
        self, max_age_s: float = 10.0, max_gap_s: float = 1.0, jump_s: float = 1.0
    ) -> None:
        self._jump_ns = int(jump_s * NS_PER_S)
        self._max_age_ns = int(max_age_s * NS_PER_S)
        self._max_gap_ns = int(max_gap_s * NS_PER_S)
        self._stamps_ns: list[int] = []
        self._poses: list[FloatArray] = []

    def __len__(self) -> int:
        return len(self._stamps_ns)

    @property
    def newest_ns(self) -> Optional[int]:
        """Stamp of the newest pose, None while the buffer is empty."""
        return self._stamps_ns[-1] if self._stamps_ns else None

    def covers(self, stamp_ns: int) -> bool:
        """Tell whether the stamp lies between the oldest and the newest pose."""
        return bool(self._stamps_ns) and self._stamps_ns[0] <= stamp_ns <= self._stamps_ns[-1]

    def clear(self) -> None:
        """Forget all poses."""
        self._stamps_ns.clear()
        self._poses.clear()

    def add(self, stamp_ns: int, xyz: npt.ArrayLike, quat_xyzw: npt.ArrayLike) -> bool:
        """Take a pose; a stamp that jumps back in time (a looped bag) first clears the buffer.

        A pose that was merely overtaken is left out: its neighbours are there.

        :param xyz: (3,) position in metres.
        :param quat_xyzw: (4,) unit quaternion in x, y, z, w order.
        :returns: False where the stamp is older than the newest, so that the caller can count it.
        :raises InputError: the pose is not finite or the quaternion not of unit length; the
            buffer is then as it was.
        """
        T_odom_base = pose_from_xyz_quat(xyz, quat_xyzw)
        newest_ns = self.newest_ns
        if newest_ns is not None and stamp_ns == newest_ns:
            self._poses[-1] = T_odom_base
            return True
        in_order = newest_ns is None or stamp_ns > newest_ns
        if newest_ns is not None and not in_order:
            if newest_ns - stamp_ns <= self._jump_ns:
                return False
            self.clear()
        self._stamps_ns.append(stamp_ns)
        self._poses.append(T_odom_base)
        # The list is trimmed in blocks: one slow removal for many adds.
        if self._stamps_ns[0] < stamp_ns - 2 * self._max_age_ns:
            first = bisect_left(self._stamps_ns, stamp_ns - self._max_age_ns)
            del self._stamps_ns[:first]
            del self._poses[:first]
        return in_order

    def pose_at(self, stamp_ns: int) -> Optional[FloatArray]:
        """Return ``T_odom_base`` (4, 4) at a stamp; None before, after or in a gap of the data."""
        after = bisect_left(self._stamps_ns, stamp_ns)
        if after == len(self._stamps_ns):
            return None
        if self._stamps_ns[after] == stamp_ns:
            return self._poses[after].copy()
        if after == 0:
            return None
        start_ns, end_ns = self._stamps_ns[after - 1], self._stamps_ns[after]
        if end_ns - start_ns > self._max_gap_ns:
            return None
        fraction = (stamp_ns - start_ns) / (end_ns - start_ns)
        return interpolate(self._poses[after - 1], self._poses[after], fraction)
