# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS for a command: started on entry, shut down on exit, with one line where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netvlad_ros.errors import NetvladError


@contextmanager
def ros_context() -> Iterator[Any]:
    """Yield an initialised ``rclpy.context.Context`` that SIGINT and SIGTERM shut down.

    :raises NetvladError: ROS 2 or netvlad_msgs is not installed.
    """
    try:
        import rclpy
        from rclpy.context import Context
        from rclpy.signals import SignalHandlerOptions

        import netvlad_msgs  # noqa: F401
    except ImportError as error:
        raise NetvladError(
            f'ROS 2 is not ready here ({error}): run scripts/setup.sh, or build netvlad_msgs '
            'and source the workspace'
        ) from error
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.ALL)
    try:
        yield context
    finally:
        context.try_shutdown()
