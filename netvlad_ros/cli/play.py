# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publish a rosbag, or a sequence folder, over ROS 2 at its own pace.

Examples:
  netvlad play drive_bag
  netvlad play drive_bag --rate 2 --clock
  netvlad play drive_bag --topics /image/compressed /odom --wait-for /image/compressed

"""

from __future__ import annotations

import argparse
from pathlib import Path

from netvlad_ros.cli.numbers import positive_float
from netvlad_ros.cli.progress import progress
from netvlad_ros.cli.ros_session import ros_context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``netvlad play``."""
    parser.add_argument(
        'bag', type=Path, help='rosbag2 folder, .mcap or .db3 file, or a folder with frames.csv'
    )
    parser.add_argument(
        '--rate', type=positive_float, default=1.0, help='speed, 1 is that of the recording'
    )
    parser.add_argument('--clock', action='store_true', help="publish the bag's time on /clock")
    parser.add_argument('--topics', nargs='+', default=[], help='play these only')
    parser.add_argument(
        '--wait-for', nargs='+', default=[], metavar='TOPIC',
        help='start when each of these topics has a subscriber',
    )
    parser.add_argument(
        '--wait-s', type=positive_float, default=30.0, help='longest wait for subscribers, seconds'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Play the bag and print what was sent."""
    with ros_context() as context:
        from netvlad_ros.ros.player import PlayOptions, play

        options = PlayOptions(
            args.rate, args.clock, tuple(args.topics), tuple(args.wait_for), args.wait_s
        )
        summary = play(args.bag, options, context, progress)
    count = sum(summary.messages.values())
    print(f'played {count} messages of {len(summary.messages)} topics in {summary.wall_s:.1f} s')
    for topic, reason in summary.skipped.items():
        print(f'left out {topic}: {reason}')
    return {
        'messages': summary.messages,
        'skipped': summary.skipped,
        'wall_s': summary.wall_s,
    }
