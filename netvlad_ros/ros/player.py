# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes a rosbag at its own pace, where ``ros2 bag play`` is not installed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
import importlib
import logging
from pathlib import Path
import time
from typing import Any, Optional

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader, AnyReaderError
from rosgraph_msgs.msg import Clock

from netvlad_ros.errors import InputError
from netvlad_ros.ros.conversions import stamp_ns_to_msg

logger = logging.getLogger(__name__)

Progress = Callable[..., Iterable[Any]]
LATCHED_TOPICS = ('/tf_static', '/robot_description')
QUEUE_DEPTH = 100
SUBSCRIBER_POLL_S = 0.05


@dataclass(frozen=True)
class PlayOptions:
    """How to play a bag.

    :param rate: speed, 1 is that of the recording.
    :param clock: publish the bag's time on /clock.
    :param topics: play only these; empty plays all.
    :param wait_for: start only when each of these topics has a subscriber.
    :param wait_s: give up waiting after this long.
    """

    rate: float = 1.0
    clock: bool = False
    topics: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()
    wait_s: float = 30.0


@dataclass(frozen=True)
class PlaySummary:
    """What was played: messages by topic, topics left out, and the wall time it took."""

    messages: dict[str, int]
    skipped: dict[str, str]
    wall_s: float


def play_bag(
    path: Path, options: PlayOptions, context: Context, progress: Optional[Progress] = None
) -> PlaySummary:
    """Publish a rosbag2 folder or file; serialized messages pass through as they are.

    :raises InputError: the bag cannot be read, or a topic that was asked for is not in it.
    """
    try:
        with AnyReader([path]) as reader:
            return _play(reader, options, context, progress)
    except (AnyReaderError, OSError, ValueError, KeyError, AssertionError) as error:
        raise InputError(f'cannot play {path}: {error or type(error).__name__}') from error


def _play(
    reader: AnyReader, options: PlayOptions, context: Context, progress: Optional[Progress]
) -> PlaySummary:
    available = sorted({connection.topic for connection in reader.connections})
    for topic in (*options.topics, *options.wait_for):
        if topic not in available:
            raise InputError(f'topic {topic!r} is not in the bag, it has: {", ".join(available)}')
    node = rclpy.create_node('netvlad_play', context=context)
    try:
        publishers, skipped = _publishers(node, reader, options.topics)
        clock = node.create_publisher(Clock, '/clock', 10) if options.clock else None
        _wait_for_subscribers(node, publishers, options)
        connections = [c for c in reader.connections if c.topic in publishers]
        total = sum(c.msgcount for c in connections)
        messages: Iterable[Any] = reader.messages(connections=connections)
        if progress is not None:
            messages = progress(messages, total, 'messages', 'playing')
        counts = dict.fromkeys(publishers, 0)
        started_s = time.monotonic()
        for topic, stamp_ns, data in _paced(messages, options.rate, context):
            if clock is not None:
                clock.publish(Clock(clock=stamp_ns_to_msg(stamp_ns)))
            publishers[topic].publish(data)
            counts[topic] += 1
        # Reliable subscribers are still fetching the last messages.
        for publisher in publishers.values():
            publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=2.0))
        return PlaySummary(counts, skipped, time.monotonic() - started_s)
    finally:
        node.destroy_node()


def _paced(
    messages: Iterable[Any], rate: float, context: Context
) -> Iterator[tuple[str, int, bytes]]:
    first_ns: Optional[int] = None
    started_s = time.monotonic()
    for connection, stamp_ns, data in messages:
        first_ns = stamp_ns if first_ns is None else first_ns
        due_s = started_s + (stamp_ns - first_ns) * 1e-9 / rate
        while (remaining_s := due_s - time.monotonic()) > 0 and context.ok():
            time.sleep(min(remaining_s, 0.1))
        if not context.ok():
            return
        yield connection.topic, stamp_ns, bytes(data)


def _publishers(
    node: Node, reader: AnyReader, topics: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    publishers: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for connection in reader.connections:
        topic, kind = connection.topic, connection.msgtype
        if (topics and topic not in topics) or topic in publishers:
            continue
        package, _, name = kind.partition('/msg/')
        try:
            message_type = getattr(importlib.import_module(f'{package}.msg'), name)
        except (ImportError, AttributeError):
            skipped[topic] = f'{kind} is not installed'
            logger.warning('%s is left out: %s is not installed', topic, kind)
            continue
        latched = topic in LATCHED_TOPICS
        profile = QoSProfile(
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            ),
        )
        publishers[topic] = node.create_publisher(message_type, topic, profile)
    if not publishers:
        raise InputError(f'no topic of the bag can be played: {skipped}')
    return publishers, skipped


def _wait_for_subscribers(node: Node, publishers: dict[str, Any], options: PlayOptions) -> None:
    deadline_s = time.monotonic() + options.wait_s
    waiting = [topic for topic in options.wait_for if topic in publishers]
    while waiting and node.context.ok():
        waiting = [t for t in waiting if publishers[t].get_subscription_count() == 0]
        if time.monotonic() > deadline_s:
            raise InputError(
                f'nobody subscribed to {", ".join(waiting)} within {options.wait_s:.0f} s'
            )
        time.sleep(SUBSCRIBER_POLL_S)
