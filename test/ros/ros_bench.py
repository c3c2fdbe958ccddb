# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages to send, and a node with a client beside it: real rclpy over real DDS."""

from collections.abc import Callable
import os
import time
from typing import Any

import cv2
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage, Image

from netvlad_ros.ros.conversions import image_to_msg, pose_to_msg, stamp_ns_to_msg
from netvlad_ros.ros.node import VprNode
from netvlad_ros.types import Camera

TIMEOUT_S = 60.0
FRAME_NS = 1_000_000_000


def scene(seed: int, size_wh: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 RGB of random shapes: another seed, another place."""
    generator = np.random.default_rng(seed)
    width, height = size_wh
    picture = np.full((height, width, 3), generator.integers(0, 255, 3), np.uint8)
    for _ in range(40):
        a, b = (tuple(map(int, generator.integers(0, (width, height)))) for _ in range(2))
        colour = tuple(map(int, generator.integers(0, 255, 3)))
        cv2.rectangle(picture, a, b, colour, int(generator.choice([-1, 1, 2])))
    return picture


def image_message(picture: np.ndarray, stamp_ns: int) -> Image:
    """Return a picture as an rgb8 image message."""
    camera = Camera(name='camera', frame_id='camera_optical')
    return image_to_msg(picture, 'rgb8', camera, stamp_ns)


def jpeg_message(picture: np.ndarray, stamp_ns: int) -> CompressedImage:
    """Return a picture as a compressed image message."""
    _, data = cv2.imencode('.jpg', picture[..., ::-1])
    message = CompressedImage(format='jpeg', data=data.tobytes())
    message.header.stamp = stamp_ns_to_msg(stamp_ns)
    message.header.frame_id = 'camera_optical'
    return message


def odometry_message(x_m: float, stamp_ns: int) -> Odometry:
    """Return odometry at x metres, looking ahead."""
    T = np.eye(4)
    T[0, 3] = x_m
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id = 'odom'
    message.header.stamp = stamp_ns_to_msg(stamp_ns)
    message.pose.pose = pose_to_msg(T)
    return message


class Bench:
    """A node under test, a client beside it, and an executor that spins both."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.context = rclpy.context.Context()
        rclpy.init(context=self.context)
        overrides = [
            rclpy.parameter.Parameter(name, value=value)
            for name, value in {**DEFAULTS, **parameters}.items()
        ]
        self.node = VprNode(context=self.context, parameter_overrides=overrides)
        self.client = rclpy.create_node('client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.client)
        self.received: dict[str, list[Any]] = {}

    def close(self) -> None:
        """Stop both nodes and the context."""
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.client.destroy_node()
        self.context.try_shutdown()

    def listen(self, message_type: Any, topic: str, profile: Any = 10) -> list[Any]:
        """Return a list that fills with the messages of a topic."""
        messages = self.received.setdefault(topic, [])
        self.client.create_subscription(message_type, topic, messages.append, profile)
        return messages

    def spin_until(self, done: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Spin until a condition holds; fail the test if it never does."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline_s, f'nothing within {timeout_s} s: {done}'
            self.executor.spin_once(timeout_sec=0.02)

    def publisher(self, message_type: Any, topic: str) -> Any:
        """Return a publisher that the node already listens to."""
        publisher = self.client.create_publisher(message_type, topic, 10)
        self.spin_until(lambda: publisher.get_subscription_count() > 0)
        return publisher

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and return its answer."""
        client = self.client.create_client(service_type, name)
        self.spin_until(client.service_is_ready)
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()


DEFAULTS = {
    'descriptor.model': os.environ.get('NETVLAD_TEST_MODEL', 'default'),
    'descriptor.runtime': 'torch',
    'keyframes.policy': 'every_frame',
    'search.exclude_s': 2.5,
    'search.min_similarity': 0.95,
    'consistency.stationary_distance_m': 0.0,
    'diagnostics_period_s': 0.1,
}


