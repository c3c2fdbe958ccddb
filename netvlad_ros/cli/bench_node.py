# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From image stamp to published closure over DDS, and the node's memory under overload.

The node runs as a process of its own on a domain of its own. Images of known places arrive at
--rate, so that each becomes a closure; the time from its stamp to the arrival of the closure is
compared with the network's own forward time, which the node measures in the same run. Geometric
verification, which runs beside and shares the processor, is off.

Examples:
  netvlad bench node
  netvlad bench node --rate 2 --images 100 --size 640 480
  netvlad bench node --memory-minutes 10

"""

from __future__ import annotations

import argparse

from netvlad_ros.cli.numbers import positive_int
from netvlad_ros.cli.progress import progress
from netvlad_ros.cli.ros_session import ros_context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``netvlad bench node``."""
    parser.add_argument('--model', default='default', help='model bundle or its name')
    parser.add_argument(
        '--images', type=positive_int, default=100, help='images of the latency run'
    )
    parser.add_argument('--rate', type=float, default=5.0, help='images per second')
    parser.add_argument(
        '--size', type=positive_int, nargs=2, default=(640, 480), metavar=('WIDTH', 'HEIGHT')
    )
    parser.add_argument(
        '--memory-minutes', type=float, default=0.0, metavar='MINUTES',
        help='instead: feed a slow network (VGG16) at 30 Hz and watch the memory',
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Run the latency or the memory benchmark."""
    with ros_context() as context:
        from netvlad_ros.ros.benchmark import measure_latency, measure_memory

        if args.memory_minutes > 0:
            memory = measure_memory(context, args.memory_minutes, progress)
            for minute, rss_mb in memory.rss_mb_by_minute.items():
                print(f'after {minute:4.1f} min: {rss_mb:7.1f} MB resident')
            print(
                f'{memory.sent} images at 30 Hz, {memory.keyframes} served, {memory.dropped} '
                f'dropped; largest growth after the first minute {memory.growth_mb:.1f} MB'
            )
            return dict(vars(memory))
        latency = measure_latency(
            context, args.model, args.images, args.rate, tuple(args.size), progress
        )
        print(f'stamp to published closure  p50 {latency.closure_p50_ms:7.1f} ms'
              f'   p95 {latency.closure_p95_ms:7.1f} ms   ({latency.closures} closures,'
              f' {latency.images_lost} images lost by the DDS)')
        print(f'network forward             p50 {latency.forward_p50_ms:7.1f} ms'
              f'   p95 {latency.forward_p95_ms:7.1f} ms')
        print(f'overhead of the node        p50 {latency.overhead_p50_ms:7.1f} ms')
        return dict(vars(latency))
