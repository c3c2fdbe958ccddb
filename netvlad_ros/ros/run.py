# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node's process: brought up, served until a signal, closed whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
import signal
from typing import Optional

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from threadpoolctl import threadpool_limits

from netvlad_ros.ros.log_bridge import forward_logging
from netvlad_ros.ros.node import VprNode
from netvlad_ros.ros.spin import spin_until_shutdown


def run(args: Optional[Sequence[str]] = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    :returns: 0 after a requested end, 1 if the node could not bring itself up.
    """
    # rclpy's own handlers end the spinning; a second Ctrl-C, which `ros2 launch` sends on top of
    # the terminal's, must not interrupt the closing of the map.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.ALL)
    try:
        return _serve_until_end()
    finally:
        rclpy.try_shutdown()


def _serve_until_end() -> int:
    # An executor that is made while a signal shuts the context down complains when it is deleted.
    executor = SingleThreadedExecutor()
    try:
        node = VprNode()
    except ParameterException as error:
        rclpy.logging.get_logger('vpr').fatal(f'cannot start: {error}')
        return 1
    except RuntimeError:
        # A signal took the context down before the node was complete.
        if rclpy.ok():
            raise
        return 0
    executor.add_node(node)
    try:
        # NumPy's BLAS threads wait for work by spinning: verification took 2.4 times the processor
        # time with two of them, and took it from the network.
        with forward_logging(node.get_logger()), threadpool_limits(1, 'blas'):
            up = not node.get_parameter('autostart').value or node.bring_up()
            if up and node.context.ok():
                spin_until_shutdown(executor)
            return 0 if up or not node.context.ok() else 1
    except ExternalShutdownException:
        return 0
    except RuntimeError:
        # A timer that fires while the signal takes the context down cannot publish.
        if node.context.ok():
            raise
        return 0
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
