# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory, beside what others do, in one run on this machine.

Examples:
  netvlad bench node                      from image stamp to published closure, over DDS
  netvlad bench node --memory-minutes 10  memory while a slow network drops frames
  netvlad bench descriptor --help         what each benchmark offers

"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path


def benchmarks() -> list[str]:
    """Return the names of the benchmarks: one module ``bench_NAME`` each."""
    modules = Path(__file__).parent.glob('bench_*.py')
    return sorted(path.stem.removeprefix('bench_') for path in modules)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand for each benchmark."""
    subparsers = parser.add_subparsers(dest='benchmark', required=True, metavar='WHAT')
    for name in benchmarks():
        module = importlib.import_module(f'netvlad_ros.cli.bench_{name}')
        first_line, _, examples = (module.__doc__ or '').strip().partition('\n')
        subparser = subparsers.add_parser(
            name,
            help=first_line,
            description=first_line,
            epilog=examples.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        # The top level declares it too; after the benchmark's name it must be known as well.
        subparser.add_argument(
            '--json', action='store_true', default=argparse.SUPPRESS,
            help='print one JSON object as the last line',
        )  # fmt: skip
        subparser.set_defaults(run_benchmark=module.run)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Run one benchmark."""
    summary: dict[str, object] = args.run_benchmark(args)
    return summary
