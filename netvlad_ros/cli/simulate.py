# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Render a drive through a made-up town as a rosbag2, or a training set of made-up places.

The bag (MCAP) has /image/compressed (or /image with --raw), /camera_info, /depth, /odom that
drifts, /ground_truth/odom and /tf_static. The same seed gives the same messages.

  netvlad simulate drive                           two laps and a stretch back, about 100 s
  netvlad simulate drive --seed 7 --light evening  another town in low sun
  netvlad simulate short --length 40 --laps 0.3    a short one for a try

With --places the output is a dataset in the Pittsburgh layout: train.mat, val.mat, test.mat and
images/SPLIT/{database,queries}/@EAST@NORTH@...@.jpg, no town in two splits.

  netvlad simulate towns --places 500 --seed 1     500 places to train on, 125 each to test on
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Union

from netvlad_ros.cli.progress import progress
from netvlad_ros.errors import ConfigError
from netvlad_ros.simulation.drive import DriveConfig, simulate_drive
from netvlad_ros.simulation.places import PlacesConfig, simulate_places

FLAGS = {
    'length_m': '--length', 'rate_hz': '--rate', 'gps_noise_m': '--gps-noise',
    'town_m': '--town-length',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; defaults and meanings are those of the library's configs."""
    parser.add_argument('output', type=Path, help='Folder to make; must not exist.')
    parser.add_argument('--seed', type=int, default=0, help='Another seed is another town.')
    _options(parser.add_argument_group('a drive'), DriveConfig())
    _options(parser.add_argument_group('a dataset of places'), PlacesConfig())


def _options(group: Any, config: Union[DriveConfig, PlacesConfig]) -> None:
    """Declare an option for each setting but the seed; one that is not given stays None."""
    for item in fields(config):
        if item.name == 'seed':
            continue
        flag = FLAGS.get(item.name, '--' + item.name.replace('_', '-'))
        default = getattr(config, item.name)
        text = f'{item.metadata["description"]} Default: {default} {item.metadata["unit"]}'
        options: dict[str, Any] = {'dest': item.name, 'default': None}
        options['help'] = text.strip().replace('%', '%%')
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
        else:
            choices = item.metadata['choices'] or None
            group.add_argument(flag, type=type(default), choices=choices, **options)


def _given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """Return the settings of a config that the command line names."""
    values = {item.name: getattr(args, item.name) for item in fields(config)}
    return {name: value for name, value in values.items() if value is not None}


def run(args: argparse.Namespace) -> dict[str, object]:
    """Render and say what was written.

    :raises ConfigError: options of a drive and of a dataset are mixed.
    """
    wanted, other = DriveConfig, PlacesConfig
    if args.places is not None:
        wanted, other = other, wanted  # type: ignore[assignment]
    misfits = sorted(set(_given(args, other)) - {'seed'})
    if misfits:
        flag = FLAGS.get(misfits[0], '--' + misfits[0].replace('_', '-'))
        reason = 'needs --places' if other is PlacesConfig else 'does not go with --places'
        raise ConfigError(f'{flag} {reason}')
    return _dataset(args) if args.places is not None else _drive(args)


def _drive(args: argparse.Namespace) -> dict[str, object]:
    summary = simulate_drive(args.output, DriveConfig(**_given(args, DriveConfig)), progress)
    print(
        f'{summary.path}: {summary.images} images of {summary.duration_s:.0f} s and '
        f'{summary.travelled_m:.0f} m, {summary.size_bytes / 1e6:.0f} MB, odometry drifts '
        f'{summary.drift:.1f} %, made in {summary.wall_s:.0f} s'
    )
    return {**asdict(summary), 'path': str(summary.path)}


def _dataset(args: argparse.Namespace) -> dict[str, object]:
    summary = simulate_places(args.output, PlacesConfig(**_given(args, PlacesConfig)), progress)
    for split, count in summary.places.items():
        print(
            f'{summary.path}: {split}: {count} places in {summary.towns[split]} towns, '
            f'{summary.database_images[split]} database images, '
            f'{summary.query_images[split]} queries'
        )
    return {**asdict(summary), 'path': str(summary.path)}
