# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the descriptor on this machine: backbone x size x runtime x precision.

Every time is the shortest of several turns that all contenders take in one process. Beside our
stages stands the same network computed the way peers do it.

  netvlad bench descriptor                                 three backbones on the CPU
  netvlad bench descriptor --backbone vgg16 --size 480x640 --whitening 4096 --threads 2
  netvlad bench descriptor --device cuda --precision fp16 --batch 16 --backbone vgg16
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

from netvlad_ros.cli.models import size_hw
from netvlad_ros.cli.numbers import positive_int
from netvlad_ros.cli.progress import progress

_DEFAULT_BACKBONES = ('mobilenet_v2_s16', 'resnet18_layer3', 'vgg16')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--backbone', nargs='+', default=list(_DEFAULT_BACKBONES), help='Names of backbones.'
    )
    parser.add_argument(
        '--size',
        nargs='+',
        type=size_hw,
        default=[(240, 320)],
        metavar='HxW',
        help='Input sizes in pixels. Default: 240x320',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=('fp32', 'bf16', 'fp16'),
        default=['fp32'],
        help='Of the backbone. Default: fp32',
    )
    parser.add_argument('--clusters', type=positive_int, default=64, help='Default: 64')
    parser.add_argument('--whitening', type=int, default=0, help='Output values. Default: none')
    parser.add_argument(
        '--batch', type=positive_int, default=1, help='Images in a call. Default: 1'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N. Default: cpu')
    parser.add_argument('--threads', type=int, default=0, help="CPU threads. Default: torch's")
    parser.add_argument(
        '--seconds', type=float, default=3.0, help='Spent on each comparison. Default: 3'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure all combinations and print a table of each."""
    from netvlad_ros.descriptor.benchmark import Case, measure

    cases = [
        Case(
            backbone, size, args.clusters, args.whitening, args.batch, args.device, precision,
            args.threads,
        )
        for backbone, size, precision in product(args.backbone, args.size, args.precision)
    ]  # fmt: skip
    results = []
    for case in progress(cases, len(cases), 'networks', 'bench'):
        result = measure(case, args.seconds)
        _print(result)
        results.append(result)
    return {'results': results}


def _print(result: dict[str, Any]) -> None:
    case, ratios = result['case'], result['ratios']
    height, width = case['size_hw']
    whitened = f' -> {case["whitening"]}' if case['whitening'] else ''
    print(
        f'\n{case["backbone"]} {height}x{width}, {case["clusters"]} clusters{whitened}, '
        f'{case["device"]} {case["precision"]}, batch {case["batch"]}'
    )
    for name, ms in result['stages'].items():
        print(f'  {name:<34}{ms:10.2f} ms')
    for name, ms in result['peers'].items():
        print(f'  {"peers: " + name:<34}{ms:10.2f} ms')
    for name, ms in result['engines'].items():
        label = f'total, auto ({result["auto_runtime"]})' if name == 'auto' else f'total, {name}'
        peak = result['peak_mb'][name]
        memory = '' if peak is None else f', peak {peak:.0f} MB'
        print(f'  {label:<34}{ms:10.2f} ms {1e3 * case["batch"] / ms:8.1f} images/s{memory}')
    for name, ms in result['bare'].items():
        print(f'  {name:<34}{ms:10.2f} ms')
    print(
        f'  auto / best bare backbone {ratios["auto_over_best_bare"]:.2f}; pooling + whitening '
        f'{100 * ratios["pooling_over_forward"]:.1f} % of forward; per-cluster loop '
        f'{ratios["loop_over_pooling"]:.0f} x, broadcast {ratios["broadcast_over_pooling"]:.0f} x '
        f'the pooling; {100 * ratios["fraction_of_matrix_rate"]:.0f} % of the matrix rate '
        f'({result["matrix_gflop_s"]:.0f} GFLOP/s)'
    )
