# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS context of its own for a command: started on entry, shut down on exit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions

import netvlad_msgs  # noqa: F401


@contextmanager
def own_context() -> Iterator[Context]:
    """Yield an initialised context that SIGINT and SIGTERM shut down."""
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.ALL)
    try:
        yield context
    finally:
        context.try_shutdown()
