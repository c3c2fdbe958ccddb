# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the keyframe map against what other systems do, on the same data in one run.

Every figure is a median or percentile of this run, and comparisons are ratios within it: the
machine's own speed cancels.

netvlad bench map                          all but the large map, a few minutes
netvlad bench map --only peers             loop, stack and sort, rebuild: cslam, Ouroboros, pySLAM
netvlad bench map --only search            bandwidth against NumPy at 20,000 x 4096
netvlad bench map --only add --count 100000   latency of storing up to 100,000 x 4096
netvlad bench map --only size              bytes on disk for each keyframe
netvlad bench map --only large --count 1000000   one million 512-D keyframes
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
import tempfile

from netvlad_ros.cli.numbers import positive_int
from netvlad_ros.cli.progress import progress

_PARTS = ('peers', 'search', 'add', 'size', 'large')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--only', choices=_PARTS, help='One part instead of all but large.')
    parser.add_argument('--count', type=positive_int, help='Keyframes of the parts add and large.')
    parser.add_argument('--threads', type=positive_int, default=2, help='CPU threads of a search.')
    parser.add_argument(
        '--folder', type=Path, help='Where maps are made (and removed); a temporary folder else.'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure and print."""
    from netvlad_ros.keyframes import benchmark, benchmark_large

    parts: dict[str, Callable[[Path], dict[str, float]]] = {
        'peers': lambda folder: benchmark.against_peers(folder, args.threads),
        'search': lambda folder: benchmark.search_bandwidth(folder, args.threads),
        'add': lambda folder: benchmark.add_latency(folder, args.count or 20_000, progress),
        'size': lambda folder: benchmark.size_on_disk(folder),
        'large': lambda folder: benchmark_large.large_map(
            folder, args.count or 1_000_000, args.threads, progress
        ),
    }
    chosen = [args.only] if args.only else [part for part in _PARTS if part != 'large']
    summary: dict[str, object] = {}
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        with tempfile.TemporaryDirectory(dir=args.folder, prefix='bench_map_') as folder:
            figures = parts[part](Path(folder))
        summary[part] = figures
        for name, value in figures.items():
            print(f'{part:7} {name:44} {value:12.4g}')
    return summary
