# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A small client of the node: what a SLAM backend subscribes to, in its simplest form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import logging
from typing import Any

from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from netvlad_msgs.msg import LoopClosure as LoopClosureMsg
from netvlad_msgs.msg import LoopClosureArray, PlaceId
from netvlad_ros.ros import qos
from netvlad_ros.ros.conversions import closure_from_msg
from netvlad_ros.ros.spin import spin_until_shutdown
from netvlad_ros.types import LoopClosure

logger = logging.getLogger(__name__)


def listen(
    on_closure: Callable[[LoopClosure], None], namespace: str, context: Context
) -> LoopClosureListener:
    """Listen until the context is shut down; returns the listener with its counts."""
    listener = LoopClosureListener(on_closure, namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    try:
        spin_until_shutdown(executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        listener.destroy_node()
    return listener


class LoopClosureListener(Node):
    """Calls back for each closure and keeps count.

    :param on_closure: called with each closure, in the order of arrival.
    :param options: those of ``rclpy.node.Node``.
    """

    def __init__(self, on_closure: Callable[[LoopClosure], None], **options: Any) -> None:
        super().__init__('loop_closure_listener', **options)
        self._on_closure = on_closure
        self.closures = 0
        self.keyframes = 0
        self.places: set[int] = set()
        self._unmatched = {'loop_closures', 'place_id'}
        for topic, kind, receive in (
            ('loop_closures', LoopClosureArray, self._receive),
            ('place_id', PlaceId, self._receive_place),
        ):
            matched = SubscriptionEventCallbacks(matched=partial(self._match, topic))
            self.create_subscription(
                kind, topic, receive, qos.RESULT_QOS, event_callbacks=matched
            )

    def _match(self, topic: str, _: Any) -> None:
        if topic in self._unmatched:
            self._unmatched.remove(topic)
            if not self._unmatched:
                logger.info('connected to a node, every later keyframe is heard')

    def _receive(self, message: LoopClosureArray) -> None:
        closure: LoopClosureMsg
        for closure in message.closures:
            self.closures += 1
            self._on_closure(closure_from_msg(closure))

    def _receive_place(self, message: PlaceId) -> None:
        self.keyframes += 1
        self.places.add(message.place_id)
