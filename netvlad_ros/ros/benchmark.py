# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measures a node in a process of its own: latency of closures, memory under overload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.bundle import BundleInfo, save_bundle
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.errors import NetvladError
from netvlad_ros.ros.conversions import image_to_msg, stamp_ns_from_msg
from netvlad_ros.types import Camera, UInt8Array

Progress = Callable[..., Iterable[Any]]
PLACES = 8
MIN_CLOSURES = 20
START_TIMEOUT_S = 120.0
MEMORY_RATE_HZ = 30.0
SAMPLE_PERIOD_S = 10.0


@dataclass(frozen=True)
class LatencyReport:
    """Times of one run, in milliseconds.

    :param images_lost: sent to the node's best-effort subscription and lost by the DDS.
    :param closure_p50_ms: median from image stamp to the arrival of its closure.
    :param forward_p50_ms: median of the network's forward pass, preprocessing included.
    """

    closures: int
    images_lost: int
    closure_p50_ms: float
    closure_p95_ms: float
    forward_p50_ms: float
    forward_p95_ms: float
    overhead_p50_ms: float


@dataclass(frozen=True)
class MemoryReport:
    """Resident memory of the node's process in MB by minute of the run."""

    rss_mb_by_minute: dict[float, float]
    growth_mb: float
    sent: int
    keyframes: int
    dropped: int


def measure_latency(
    context: Context, model: str, images: int, rate_hz: float, size_wh: tuple[int, ...],
    progress: Progress,
) -> LatencyReport:
    """Send images of a few places in turn and time the closures that come back.

    :raises NetvladError: the node did not come up or no closure came back.
    """
    parameters = {
        'descriptor.model': model,
        'keyframes.policy': 'every_frame',
        'search.exclude_s': 0.0,
        'search.min_similarity': 0.9,
        'search.max_candidates': 1,
        'verification.enabled': False,
        'diagnostics_period_s': 0.5,
    }
    pictures = [_scene(seed, size_wh) for seed in range(PLACES)]
    with _node(parameters) as process:
        client = _Client(context)
        client.wait_until_up(process)
        # The first round makes the places known; it is not counted.
        for index in progress(range(PLACES + images), PLACES + images, 'image', 'latency'):
            client.send(pictures[index % PLACES])
            client.spin_for(1.0 / rate_hz)
        client.spin_for(1.0)
        times_ms = np.array(client.closure_ms[1:])
        facts = client.facts
        client.close()
    lost = int(facts.get('problem: image messages lost on the way', 0))
    if len(times_ms) < MIN_CLOSURES:
        raise NetvladError(
            f'only {len(times_ms)} closures for {images} images, of which {lost} were lost on the '
            'way: lower --rate or --size'
        )
    p50, p95 = np.percentile(times_ms, [50, 95])
    forward_p50 = float(facts['descriptor p50 [ms]'])
    return LatencyReport(
        closures=len(times_ms),
        images_lost=lost,
        closure_p50_ms=float(p50),
        closure_p95_ms=float(p95),
        forward_p50_ms=forward_p50,
        forward_p95_ms=float(facts['descriptor p95 [ms]']),
        overhead_p50_ms=float(p50) - forward_p50,
    )


def measure_memory(context: Context, minutes: float, progress: Progress) -> MemoryReport:
    """Feed a node with a slow network at 30 Hz and sample its resident memory.

    :raises NetvladError: the node did not come up.
    """
    picture = _scene(0, (640, 480))
    with tempfile.TemporaryDirectory() as folder:
        parameters = {
            'descriptor.model': str(_slow_model(Path(folder))),
            'descriptor.runtime': 'torch',
            'keyframes.policy': 'every_frame',
            'map_path': str(Path(folder) / 'map'),
        }
        with _node(parameters) as process:
            client = _Client(context)
            client.wait_until_up(process)
            rss_mb: dict[float, float] = {}
            count = int(minutes * 60.0 * MEMORY_RATE_HZ)
            started_s, next_sample_s = time.monotonic(), 0.0
            for index in progress(range(count), count, 'image', 'memory'):
                client.send(picture)
                client.spin_until_s(started_s + (index + 1) / MEMORY_RATE_HZ)
                elapsed_s = time.monotonic() - started_s
                if elapsed_s >= next_sample_s:
                    rss_mb[round(elapsed_s / 60.0, 2)] = _resident_mb(process.pid)
                    next_sample_s += SAMPLE_PERIOD_S
            client.spin_for(2.0)
            facts = client.facts
            client.close()
    first = next((mb for minute, mb in rss_mb.items() if minute >= 1.0), max(rss_mb.values()))
    late = [mb for minute, mb in rss_mb.items() if minute >= 1.0] or [first]
    return MemoryReport(
        rss_mb_by_minute=rss_mb,
        growth_mb=max(late) - first,
        sent=count,
        keyframes=int(facts.get('keyframes', 0)),
        dropped=int(facts.get('frames dropped, a newer one came', 0)),
    )


class _Client(Node):
    """Sends images and times the closures that come back."""

    def __init__(self, context: Context) -> None:
        super().__init__('bench_client', context=context)
        self.closure_ms: list[float] = []
        self.facts: dict[str, str] = {}
        self._images = self.create_publisher(Image, 'image', 1)
        self.create_subscription(LoopClosureArray, 'loop_closures', self._on_closures, 100)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)

    def wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._images.get_subscription_count() == 0:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise NetvladError(f'the node did not come up, exit code {process.poll()}')
            time.sleep(0.1)

    def send(self, picture: UInt8Array) -> None:
        message = image_to_msg(picture, 'rgb8', Camera(), time.time_ns())
        self._images.publish(message)

    def spin_for(self, seconds: float) -> None:
        self.spin_until_s(time.monotonic() + seconds)

    def spin_until_s(self, deadline_s: float) -> None:
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining_s)

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()

    def _on_closures(self, message: LoopClosureArray) -> None:
        arrived_ns = time.time_ns()
        if message.closures[0].status < LoopClosure.STATUS_VERIFIED:
            self.closure_ms.append((arrived_ns - stamp_ns_from_msg(message.header.stamp)) / 1e6)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.facts = {pair.key: pair.value for pair in message.status[0].values}


@contextmanager
def _node(parameters: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, '-m', 'netvlad_ros.ros.vpr_node', '--ros-args']
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ['-p', f'{name}:={text}']
    # The ROS wheels start Python anew and mark that in the environment.
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _scene(seed: int, size_wh: tuple[int, ...]) -> UInt8Array:
    """Return a picture of random rectangles; another seed is another place."""
    generator = np.random.default_rng(seed)
    width, height = size_wh
    picture = np.full((height, width, 3), generator.integers(0, 255, 3), np.uint8)
    for _ in range(60):
        a, b = (generator.integers(0, (width, height)).tolist() for _ in range(2))
        cv2.rectangle(picture, a, b, generator.integers(0, 255, 3).tolist(), -1)
    return picture


def _slow_model(folder: Path) -> Path:
    """Write VGG16-NetVLAD with random weights: its speed is that of the trained one."""
    network = DescriptorNetwork(InputPolicy(), make_backbone('vgg16'), NetVLAD(8, 512))
    path = folder / 'vgg16_random.safetensors'
    save_bundle(path, network, BundleInfo(name='vgg16_random'))
    return path


def _resident_mb(pid: int) -> float:
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024.0
    return 0.0
