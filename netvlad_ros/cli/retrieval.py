# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The part of ``netvlad test`` that judges retrieval sets by mean average precision."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING

from netvlad_ros.cli.progress import progress
from netvlad_ros.errors import ConfigError

if TYPE_CHECKING:
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.preprocess import InputPolicy
    from netvlad_ros.training.images import ImageSource
    from netvlad_ros.training.retrieval import RetrievalSet


def test_retrieval(
    args: argparse.Namespace, networks: Iterator[tuple[str, DescriptorNetwork]]
) -> dict[str, object]:
    """Rank all images for each query by every network and print the mean average precision."""
    from netvlad_ros.training.features import describe
    from netvlad_ros.training.images import ImageFiles
    from netvlad_ros.training.retrieval import judge, open_retrieval

    for option in ('plot', 'nms'):
        if getattr(args, option):
            raise ConfigError(f'--{option} is for recall on places, not for a retrieval set')
    data = open_retrieval(args.dataset, args.images, '' if args.kind == 'auto' else args.kind)
    data = _readable(data)
    protocol = protocol_of(data, args.full_queries)
    print(protocol)
    results: dict[str, object] = {}
    for label, network in networks:
        database = describe(network, ImageFiles(data.images, network.policy), progress)
        queries = database[data.queries]
        if data.boxes_xyxy is not None and not args.full_queries:
            queries = describe(network, _cropped(data, network.policy), progress)
        scores = judge(data, queries, database)
        print(
            f'{label}: mAP {100 * scores.published:.2f} %, with the query out of the ranking '
            f'{100 * scores.without_query:.2f} %'
        )
        results[label] = dataclasses.asdict(scores)
    return {'protocol': protocol, 'results': results}


def protocol_of(data: RetrievalSet, full_queries: bool) -> str:
    """Return in one line what a mean average precision means."""
    own = 'is right for it, as published' if data.lists_queries else 'is taken out of the ranking'
    asks = 'whole images' if data.boxes_xyxy is None or full_queries else 'their marked part'
    junk = sum(len(row) for row in data.junk)
    return (
        f'protocol: {len(data.queries)} queries ({asks}), all in the mean, {len(data.images)} '
        f'images ranked, {sum(len(row) for row in data.right)} right answers; {junk} junk answers '
        f"are taken out of the ranking; a query's own image {own}; average precision by the "
        'trapezoid rule'
    )


def _readable(data: RetrievalSet) -> RetrievalSet:
    """Return the set without damaged images, of which Paris6k was published with 20."""
    from netvlad_ros.training.images import unreadable

    bad = unreadable(data.images, progress)
    if not bad:
        return data
    kept = data.without(bad)
    print(
        f'skipped {len(bad)} unreadable images of {len(data.images)} and '
        f'{len(data.queries) - len(kept.queries)} of their queries'
    )
    return kept


def _cropped(data: RetrievalSet, policy: InputPolicy) -> ImageSource:
    from netvlad_ros.training.images import CroppedFiles

    assert data.boxes_xyxy is not None
    return CroppedFiles([data.images[q] for q in data.queries], policy, data.boxes_xyxy)
