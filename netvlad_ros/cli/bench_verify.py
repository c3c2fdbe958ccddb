# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure local features and the check of one candidate: processor time on one core.

Worked examples:
  netvlad bench verify sequences/desk                  features, candidates, pose by odometry
  netvlad bench verify drive/ --pairs 200 --features orb
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path
import time
from typing import Any

from netvlad_ros.cli.numbers import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument('source', metavar='SOURCE', help='bag, or folder with frames.csv')
    parser.add_argument(
        '--images', type=positive_int, default=40, help='keyframes taken (default 40)'
    )
    parser.add_argument(
        '--pairs', type=positive_int, default=100, help='pairs checked (default 100)'
    )
    parser.add_argument('--features', choices=('rootsift', 'orb'), default='rootsift')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Time features and verification; half of the pairs are neighbours, half are far apart."""
    import cv2
    import numpy as np
    from threadpoolctl import threadpool_limits

    from netvlad_ros.config import VerificationConfig
    from netvlad_ros.errors import InputError
    from netvlad_ros.evaluation.sources import open_source
    from netvlad_ros.keyframes import KeyframeSelector
    from netvlad_ros.loop_closure.verification import Verifier
    from netvlad_ros.loop_closure.view import View
    from netvlad_ros.types import ClosureStatus, Keyframe, LoopClosure, TransformKind

    if args.images < 2 or args.pairs < 1:
        raise InputError(
            f'--images {args.images} --pairs {args.pairs}: at least 2 images and 1 pair are needed'
        )
    selector = KeyframeSelector()
    source = open_source(Path(args.source))
    keyframes = filter(selector.accepts, source.frames())
    frames = list(islice(keyframes, args.images))
    if len(frames) < 2:
        raise InputError(f'{args.source} holds {len(frames)} keyframes, at least 2 are needed')
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with threadpool_limits(1, 'blas'):
        verifier = Verifier(replace(VerificationConfig(), features=args.features))
        views, bare, feature_ms, counts = [], [], [], []
        for frame in frames:
            view = View.from_frame(frame)
            began = time.process_time()
            local = view.local(verifier.extractor)
            feature_ms.append(1e3 * (time.process_time() - began))
            counts.append(0 if local is None else len(local.features))
            views.append(view)
            bare.append(View.from_frame(replace(frame, depth_m=None)))
            bare[-1].local(verifier.extractor)
        check_ms, measure_ms, verified, measured = [], [], 0, 0
        for index in range(args.pairs):
            query = index % len(views)
            step = 1 if index % 2 == 0 else 1 + len(views) // 2
            match = (query + step) % len(views)
            closure = LoopClosure(
                Keyframe(query, 0, '', '', 0), Keyframe(match, 0, '', '', 0), 0.0, ''
            )
            began = time.process_time()
            answer = verifier.check(closure, views[query], views[match])
            check_ms.append(1e3 * (time.process_time() - began))
            verified += answer.closure.status is ClosureStatus.VERIFIED
            answer = verifier.check(closure, bare[query], bare[match])
            if answer.closure.status is not ClosureStatus.VERIFIED:
                continue
            before, around = bare[max(query - 2, 0) : query], bare[max(match - 2, 0) : match + 3]
            around = [view for view in around if view is not bare[match]]
            began = time.process_time()
            found = verifier.measure(answer, bare[query], bare[match], before, around)
            measure_ms.append(1e3 * (time.process_time() - began))
            measured += found.transform_kind is TransformKind.METRIC
    cv2.setNumThreads(threads)
    height, width = frames[0].image_rgb.shape[:2]
    summary: dict[str, Any] = {
        'source': args.source,
        'size': [width, height],
        'features': args.features,
        'features_per_image': float(np.median(counts)),
        'feature_ms': _percentiles(feature_ms),
        'pairs': args.pairs,
        'verified': verified,
        'verify_ms': _percentiles(check_ms),
        'measured': measured,
        'measure_ms': _percentiles(measure_ms),
    }
    print(f'{args.source}: {len(views)} keyframes of {width}x{height}, one core')
    print(f'  {args.features}, {summary["features_per_image"]:.0f} features per image')
    for name, key in (
        ('features, once per keyframe', 'feature_ms'),
        ('one candidate', 'verify_ms'),
        ('pose by odometry, of the best', 'measure_ms'),
    ):
        times = summary[key]
        print(f'  {name:<30} p50 {times["p50"]:.1f} ms, p95 {times["p95"]:.1f} ms')
    print(f'  {verified} of {args.pairs} pairs verified, {measured} measured without depth')
    return summary


def _percentiles(values: list[float]) -> dict[str, float]:
    import numpy as np

    return {
        f'p{p}': round(float(np.percentile(values, p)), 2) if values else 0.0 for p in (50, 95, 99)
    }
