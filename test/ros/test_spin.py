# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The end of a process, in the order in which rclpy's signal thread brings it about."""

from contextlib import suppress
import threading
import time

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from netvlad_ros.ros.spin import spin_until_shutdown


def test_an_executor_that_was_woken_before_the_context_ended_ends():
    context = Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node('waits', context=context, start_parameter_services=False)
    executor.add_node(node)

    def spin():
        with suppress(ExternalShutdownException):
            spin_until_shutdown(executor)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    time.sleep(0.2)
    executor.wake()
    time.sleep(0.2)
    # As the signal thread does it: below Python, so that nothing wakes the executor again.
    with context.handle:
        context.handle.shutdown()
    thread.join(5.0)
    ended = not thread.is_alive()
    executor.wake()
    thread.join(5.0)
    executor.shutdown()
    node.destroy_node()
    assert ended, 'the executor still waits'
