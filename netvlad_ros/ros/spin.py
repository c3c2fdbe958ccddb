# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Serving callbacks until the context ends, without missing that end."""

from __future__ import annotations

from rclpy.executors import Executor

# How late the end is noticed where nothing else wakes the executor.
POLL_S = 0.5


def spin_until_shutdown(executor: Executor) -> None:
    """Serve callbacks until the executor's context is shut down.

    ``executor.spin()`` may wait for ever: on a signal rclpy first wakes the executor and only
    then shuts the context down (rclpy/src/rclpy/signal_handler.cpp), so an executor that is quick
    to wait again sleeps until the next message or signal.

    :raises ExternalShutdownException: the context ended while the executor waited.
    """
    while executor.context.ok():
        executor.spin_once(timeout_sec=POLL_S)
