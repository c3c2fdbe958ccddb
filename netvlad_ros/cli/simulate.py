# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Render a drive through a made-up town as a rosbag2.

The bag (MCAP) has /image/compressed (or /image with --raw), /camera_info, /depth, /odom that
drifts, /ground_truth/odom and /tf_static. The same seed gives the same messages.

  netvlad simulate drive                           a drive of two laps and a stretch back
  netvlad simulate drive --seed 7 --light evening  another town in low sun
  netvlad simulate short --length 40 --laps 0.5    a short one for a try
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from netvlad_ros.cli.progress import progress
from netvlad_ros.simulation.drive import DriveConfig, simulate_drive
from netvlad_ros.simulation.light import LIGHTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; defaults and meanings are those of ``DriveConfig``."""
    info = {item.name: item for item in fields(DriveConfig)}

    def option(flag: str, name: str, kind: type) -> None:
        item = info[name]
        unit = item.metadata['unit'].replace('%', '%%')
        text = f'{item.metadata["description"]} Default: {item.default} {unit}'.rstrip()
        parser.add_argument(flag, dest=name, type=kind, default=item.default, help=text)

    parser.add_argument('output', type=Path, help='Folder of the bag; must not exist.')
    option('--seed', 'seed', int)
    option('--length', 'length_m', float)
    option('--laps', 'laps', float)
    option('--rate', 'rate_hz', float)
    option('--drift', 'drift', float)
    option('--jpeg-quality', 'jpeg_quality', int)
    parser.add_argument(
        '--light', choices=LIGHTS, default=info['light'].default,
        help=f'{info["light"].metadata["description"]} Default: {info["light"].default}',
    )
    parser.add_argument('--raw', action='store_true', help=info['raw'].metadata['description'])
    parser.add_argument(
        '--no-reverse', dest='reverse', action='store_false', help='Leave out the stretch back.'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Render and say what was written."""
    config = DriveConfig(**{item.name: getattr(args, item.name) for item in fields(DriveConfig)})
    summary = simulate_drive(args.output, config, progress)
    print(
        f'{summary.path}: {summary.images} images of {summary.duration_s:.0f} s and '
        f'{summary.travelled_m:.0f} m, {summary.size_bytes / 1e6:.0f} MB, odometry drifts '
        f'{summary.drift:.1f} %, made in {summary.wall_s:.0f} s'
    )
    return {**asdict(summary), 'path': str(summary.path)}
