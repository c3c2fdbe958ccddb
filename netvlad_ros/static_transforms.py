# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tree of /tf_static, for the pose of a camera on its robot."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.geometry import inverse, pose_from_xyz_quat
from netvlad_ros.types import FloatArray


class StaticTransforms:
    """Takes tf2_msgs/TFMessage, of rclpy or of a bag's reader, and answers for pairs of frames."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, FloatArray]] = {}

    def add(self, message: Any) -> None:
        """Take a tf2_msgs/TFMessage.

        :raises InputError: a transform is not finite or its quaternion not of unit length; the
            others of the message are taken.
        """
        broken = []
        for stamped in message.transforms:
            parent = stamped.header.frame_id.lstrip('/')
            child = stamped.child_frame_id.lstrip('/')
            t, q = stamped.transform.translation, stamped.transform.rotation
            try:
                T_parent_child = pose_from_xyz_quat((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
                self._parents[child] = (parent, T_parent_child)
            except InputError as error:
                broken.append(f'static transform from {parent!r} to {child!r}: {error}')
        if broken:
            raise InputError('; '.join(broken))

    def lookup(self, base_frame_id: str, frame_id: str) -> Optional[FloatArray]:
        """Return T_base_frame (4, 4), or None where no chain of transforms joins the frames."""
        above_base, above_frame = self._above(base_frame_id), self._above(frame_id)
        for ancestor, T_ancestor_frame in above_frame.items():
            if ancestor in above_base:
                return np.asarray(inverse(above_base[ancestor]) @ T_ancestor_frame)
        return None

    def _above(self, frame_id: str) -> dict[str, FloatArray]:
        """Return T_ancestor_frame by ancestor, the frame itself first and the root last."""
        T, above, frame_id = np.eye(4), {}, frame_id.lstrip('/')
        # Every frame once: the walk ends even if someone closed a loop.
        while frame_id not in above:
            above[frame_id] = T
            if frame_id not in self._parents:
                break
            frame_id, T_parent_child = self._parents[frame_id]
            T = T_parent_child @ T
        return above
