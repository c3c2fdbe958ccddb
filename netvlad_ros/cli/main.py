# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ``netvlad`` command: finds the subcommand, maps known errors to one line and exit code 1."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import importlib
import json
import logging
import os
from pathlib import Path
import signal
import sys
from typing import Optional

from netvlad_ros import __version__
from netvlad_ros.errors import NetvladError

# Heavy libraries are imported by a command's run(), so that --help stays fast.
COMMANDS = (
    'simulate', 'play', 'listen', 'evaluate', 'models', 'describe', 'map', 'cluster', 'train',
    'whiten', 'test', 'bench',
)  # fmt: skip

# An interruption is how these end.
ENDLESS = ('play', 'listen')


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog='netvlad', description='Visual place recognition and loop closure for robots.'
    )
    parser.add_argument('--version', action='version', version=f'netvlad_ros {__version__}')
    subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name in COMMANDS:
        module = importlib.import_module(f'netvlad_ros.cli.{name}')
        first_line, _, examples = (module.__doc__ or '').strip().partition('\n')
        subparser = subparsers.add_parser(
            name,
            help=first_line,
            description=first_line,
            epilog=examples.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.add_argument(
            '--json', action='store_true', help='print one JSON object as the last line'
        )
        subparser.add_argument(
            '-v', '--verbose', action='store_true', help='log what happens on stderr'
        )
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one subcommand.

    :returns: 0 done, 1 a known error (one line on stderr); argparse exits with 2 on wrong usage.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format='%(levelname)s %(name)s: %(message)s',
    )
    try:
        summary = args.run(args)
    except NetvladError as error:
        print(f'netvlad {args.command}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if args.command in ENDLESS:
            return 0
        print(f'netvlad {args.command}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if args.json:
        print(json.dumps(summary))
    return 0


def main_by_name() -> int:
    """Run the subcommand that the executable is named after (``ros2 run netvlad_ros play``)."""
    return main([Path(sys.argv[0]).name, *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
