# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Print loop closures as they arrive, until interrupted.

Examples:
  netvlad listen
  netvlad listen --namespace /robot1

"""

from __future__ import annotations

import argparse

from netvlad_ros.cli.ros_session import ros_context
from netvlad_ros.types import LoopClosure

NS_PER_S = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``netvlad listen``."""
    parser.add_argument('--namespace', default='', help='namespace of the node')


def format_closure(closure: LoopClosure) -> str:
    """Return one line: when, which keyframes, how alike, which place."""
    query, match = closure.query, closure.match
    line = (
        f'{query.stamp_ns / NS_PER_S:.2f} s saw {match.stamp_ns / NS_PER_S:.2f} s again: '
        f'keyframe {query.id} = {match.id}, similarity {closure.similarity:.3f}, '
        f'place {match.place_id}, {closure.status.name}'
    )
    if closure.num_inliers:
        line += f', {closure.num_inliers} inliers'
    return line


def run(args: argparse.Namespace) -> dict[str, object]:
    """Listen until SIGINT or SIGTERM."""
    with ros_context() as context:
        from netvlad_ros.ros.listener import listen

        listener = listen(
            lambda closure: print(format_closure(closure), flush=True),
            namespace=args.namespace,
            context=context,
        )
    print(
        f'{listener.closures} loop closures, {listener.keyframes} keyframes, '
        f'{len(listener.places)} places'
    )
    return {
        'closures': listener.closures,
        'keyframes': listener.keyframes,
        'places': len(listener.places),
    }
