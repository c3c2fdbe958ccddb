# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS for a command, with one line where it is missing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from netvlad_ros.errors import NetvladError


def ros_context() -> AbstractContextManager[Any]:
    """Return a context manager of an initialised ``rclpy.context.Context``.

    :raises NetvladError: ROS 2 or netvlad_msgs is not installed.
    """
    try:
        from netvlad_ros.ros.session import own_context
    except ImportError as error:
        raise NetvladError(
            f'ROS 2 is not ready here ({error}): run scripts/setup.sh, or build netvlad_msgs '
            'and source the workspace'
        ) from error
    context: AbstractContextManager[Any] = own_context()
    return context
