# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes a recording at its own pace, where ``ros2 bag play`` is not installed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import importlib
import logging
from pathlib import Path
import time
from typing import Any, Optional

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader, AnyReaderError
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.source_bag import BagSource
from netvlad_ros.evaluation.sources import Source, open_source
from netvlad_ros.ros.conversions import camera_to_msg, image_to_msg, stamp_ns_to_msg

logger = logging.getLogger(__name__)

Progress = Callable[..., Iterable[Any]]
# Topic, stamp in ns, and the message or its serialized bytes.
Messages = Generator[tuple[str, int, Any], None, None]
LATCHED_TOPICS = ('/tf_static', '/robot_description')
QUEUE_DEPTH = 100
# As many as ros2 bag play reads ahead.
MESSAGES_AHEAD = 1000
FLUSH_S = 2.0
LINGER_S = 1.0
SLEEP_S = 0.1
SUBSCRIBER_POLL_S = 0.05


@dataclass(frozen=True)
class PlayOptions:
    """How to play a recording.

    :param rate: speed, 1 is that of the recording.
    :param clock: publish the recording's time on /clock.
    :param topics: play only these of a bag; empty plays all.
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


def play(
    path: Path, options: PlayOptions, context: Context, progress: Optional[Progress] = None
) -> PlaySummary:
    """Publish a rosbag2, whose serialized messages pass through, or a folder of images.

    :raises InputError: it cannot be read, or a topic that was asked for is not in it.
    """
    source = open_source(path)
    if not isinstance(source, BagSource):
        return _play(_image_recording(source), options, context, progress)
    try:
        return _play(_bag_recording(path, options.topics), options, context, progress)
    except (AnyReaderError, OSError, ValueError, KeyError, AssertionError) as error:
        raise InputError(f'cannot play {path}: {error or type(error).__name__}') from error


@dataclass(frozen=True)
class _Recording:
    """Topics with their message types, and the messages in order of time."""

    types: dict[str, Any]
    skipped: dict[str, str]
    count: int
    messages: Messages


def _bag_recording(path: Path, topics: Collection[str]) -> _Recording:
    with AnyReader([path]) as reader:
        connections = list(reader.connections)
    available = sorted({connection.topic for connection in connections})
    for topic in topics:
        if topic not in available:
            raise InputError(f'topic {topic!r} is not in the bag, it has: {", ".join(available)}')
    types: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for connection in connections:
        topic, kind = connection.topic, connection.msgtype
        if topics and topic not in topics:
            continue
        package, _, name = kind.partition('/msg/')
        try:
            types[topic] = getattr(importlib.import_module(f'{package}.msg'), name)
        except (ImportError, AttributeError):
            skipped[topic] = f'{kind} is not installed'
            logger.warning('%s is left out: %s is not installed', topic, kind)
    if not types:
        raise InputError(f'no topic of the bag can be played: {skipped}')
    count = sum(c.msgcount for c in connections if c.topic in types)
    return _Recording(types, skipped, count, _bag_messages(path, types))


def _bag_messages(path: Path, topics: Collection[str]) -> Messages:
    # SQLite wants a bag to be opened, read and closed by one thread.
    with AnyReader([path]) as reader:
        connections = [c for c in reader.connections if c.topic in topics]
        for connection, stamp_ns, data in reader.messages(connections=connections):
            yield connection.topic, stamp_ns, bytes(data)


def _image_recording(source: Source) -> _Recording:
    def messages() -> Messages:
        for frame in source.frames():
            yield '/camera_info', frame.stamp_ns, camera_to_msg(frame.camera, frame.stamp_ns)
            if frame.depth_m is not None:
                depth = image_to_msg(frame.depth_m, '32FC1', frame.camera, frame.stamp_ns)
                yield '/depth', frame.stamp_ns, depth
            image = image_to_msg(frame.image_rgb, 'rgb8', frame.camera, frame.stamp_ns)
            yield '/image', frame.stamp_ns, image

    types = {'/camera_info': CameraInfo, '/depth': Image, '/image': Image}
    return _Recording(types, {}, 2 * source.frame_count, messages())


def _play(
    recording: _Recording, options: PlayOptions, context: Context, progress: Optional[Progress]
) -> PlaySummary:
    for topic in options.wait_for:
        if topic not in recording.types:
            raise InputError(
                f'topic {topic!r} is not played, these are: {", ".join(sorted(recording.types))}'
            )
    node = rclpy.create_node('netvlad_play', context=context)
    try:
        publishers = {
            topic: node.create_publisher(message_type, topic, _profile(topic))
            for topic, message_type in recording.types.items()
        }
        clock = node.create_publisher(Clock, '/clock', 10) if options.clock else None
        _wait_for_subscribers(node, publishers, options)
        logger.info('playing %d messages of %s', recording.count, ', '.join(publishers))
        messages: Iterable[Any] = read_ahead(recording.messages)
        if progress is not None:
            messages = progress(messages, recording.count, 'messages', 'playing')
        counts = dict.fromkeys(publishers, 0)
        started_s = time.monotonic()
        for topic, stamp_ns, message in _paced(messages, options.rate, context):
            if clock is not None:
                clock.publish(Clock(clock=stamp_ns_to_msg(stamp_ns)))
            publishers[topic].publish(message)
            counts[topic] += 1
        # Reliable subscribers are still fetching the last messages.
        for publisher in publishers.values():
            if context.ok():
                publisher.wait_for_all_acked(Duration(seconds=FLUSH_S))
        # Best-effort ones acknowledge nothing, and read from memory that goes with this process.
        if context.ok():
            time.sleep(LINGER_S)
        return PlaySummary(counts, recording.skipped, time.monotonic() - started_s)
    finally:
        node.destroy_node()


def read_ahead(messages: Messages) -> Iterator[tuple[str, int, Any]]:
    """Yield the messages, read by a thread of their own.

    A compressed chunk of a bag holds seconds of it. Unpacked when its first message is due, it
    holds up the messages, and then they come in a burst.
    """
    with ThreadPoolExecutor(1, 'read_ahead') as thread:
        waiting = deque(thread.submit(next, messages, None) for _ in range(MESSAGES_AHEAD))
        try:
            while (entry := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, messages, None))
                yield entry
        finally:
            for job in waiting:
                job.cancel()
            thread.submit(messages.close)


def _paced(
    messages: Iterable[tuple[str, int, Any]], rate: float, context: Context
) -> Iterator[tuple[str, int, Any]]:
    first_ns: Optional[int] = None
    started_s = time.monotonic()
    for topic, stamp_ns, message in messages:
        first_ns = stamp_ns if first_ns is None else first_ns
        due_s = started_s + (stamp_ns - first_ns) * 1e-9 / rate
        while (remaining_s := due_s - time.monotonic()) > 0 and context.ok():
            time.sleep(min(remaining_s, SLEEP_S))
        if not context.ok():
            return
        yield topic, stamp_ns, message


def _profile(topic: str) -> QoSProfile:
    latched = topic in LATCHED_TOPICS
    return QoSProfile(
        depth=QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


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
