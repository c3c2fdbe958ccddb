# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Measure recall@N of models on places, or mean average precision on a retrieval set.

Recall@N is the share of all queries with a right image among the best N. The intervals are 95 %
bootstrap intervals over distinct query positions. The protocol is printed beside every figure.
Retrieval sets are known by their layout: the ground-truth files of Oxford5k and Paris6k
(*_query.txt, or gnd_*.mat) and the file names of INRIA Holidays.

  netvlad test pitts30k_test.mat --images pitts/ --split test
  netvlad test walks/ --split val --model start.safetensors trained.safetensors \
      vlad.safetensors max.safetensors --plot recall.png
  netvlad test tokyo247.mat --images tokyo/ --split test --nms
  netvlad test walks/ --split val --model start.safetensors --alpha-sweep 0.1 0.3 3 10
  netvlad test oxford/gt --images oxford/jpg        mean average precision of cropped queries
  netvlad test holidays/jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from netvlad_ros.cli.numbers import positive_float
from netvlad_ros.cli.progress import progress
from netvlad_ros.cli.retrieval import test_retrieval
from netvlad_ros.cli.training_data import add_data_arguments, image_source, open_checked
from netvlad_ros.errors import ConfigError

if TYPE_CHECKING:
    from netvlad_ros.descriptor import ModelBundle
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.training.places import IntArray, PlaceDataset
    from netvlad_ros.training.recall import Recall

RECALLS = (1, 5, 10, 20, 25)

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser, split='test')
    parser.add_argument('--model', nargs='+', default=['default'], help='Default: default')
    parser.add_argument(
        '--nms', action='store_true',
        help='Keep the best image of each panorama, as the authors do for Tokyo 24/7.',
    )
    parser.add_argument(
        '--full-queries', action='store_true',
        help='Oxford and Paris: ask with the whole image instead of the marked part.',
    )
    parser.add_argument('--plot', type=Path, help='Draw the recall curves of all models here.')
    parser.add_argument(
        '--alpha-sweep', type=positive_float, nargs='+', metavar='ALPHA',
        help='Also test NetVLAD with its assignment made sharper or softer by these factors.',
    )
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: auto'
    )
    parser.add_argument('--seed', type=int, default=0, help='Of the bootstrap. Default: 0')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Test every model and print its recall, or its mean average precision."""
    from netvlad_ros.training.plots import Curve, recall_figure
    from netvlad_ros.training.retrieval import KINDS, retrieval_kind

    if args.kind in KINDS or (args.kind == 'auto' and retrieval_kind(args.dataset)):
        networks = ((label, bundle.network) for label, bundle in _variants(args))
        return test_retrieval(args, networks)
    dataset = open_checked(args, args.split)
    group = dataset.database.panorama if args.nms else None
    if args.nms and group is None:
        raise ConfigError(f'{dataset.name} has no panoramas, --nms does not apply')
    protocol = protocol_of(dataset, args.nms)
    print(protocol)
    results: dict[str, dict[str, Any]] = {}
    curves: list[Curve] = []
    for label, bundle in _variants(args):
        recall = _recall(args, bundle.network, dataset, group)
        results[label] = _shown(label, recall, len(dataset.database))
        training = bundle.info.training
        is_trained = bool(training) and training.get('recipe') != 'cluster'
        curves.append(
            Curve(label, results[label]['recall_at'], bundle.network.pooling.kind, is_trained)
        )
    if args.plot:
        title = f'{dataset.name} {dataset.split}'.removesuffix(f'{dataset.split} {dataset.split}')
        recall_figure(curves, title or dataset.split, args.plot)
        print(f'{args.plot}: recall of {len(curves)} runs')
    return {'protocol': protocol, 'results': results}


def _variants(args: argparse.Namespace) -> Iterator[tuple[str, ModelBundle]]:
    """Yield every model and its variants of the alpha sweep, under labels of their own."""
    from netvlad_ros.descriptor import load_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.training.frozen import to_device

    seen: set[str] = set()
    # A model that is missing is found before the first one is tested.
    for model, file in [(model, find_model(model)) for model in args.model]:
        bundle = load_bundle(file)
        to_device(bundle.network, args.device)
        # Two runs may have given their models one name; the file tells them apart.
        name = bundle.info.name if bundle.info.name not in seen else str(model)
        seen.add(name)
        yield name, bundle
        for factor in args.alpha_sweep or []:
            sharper = dataclasses.replace(bundle, network=_sharper(bundle.network, factor))
            yield f'{name} alpha x{factor:g}', sharper


def protocol_of(dataset: PlaceDataset, nms: bool) -> str:
    """Return in one line what a recall figure means."""
    without = sum(len(row) == 0 for row in dataset.right())
    stamps = '' if dataset.trivial_stamps() is None else ', images of its own stamp taken out'
    return (
        f'protocol: {len(dataset.queries)} queries, all in the denominator ({without} without a '
        f'right answer), {len(dataset.database)} database images, right within '
        f'{dataset.true_radius_m:g} m inclusive, heading ignored, suppression per panorama '
        f'{"on" if nms else "off"}{stamps}'
    )


def _recall(
    args: argparse.Namespace,
    network: DescriptorNetwork,
    dataset: PlaceDataset,
    group: Optional[IntArray],
) -> Recall:
    from netvlad_ros.training.features import describe
    from netvlad_ros.training.recall import recall_at

    database, queries = (
        describe(network, image_source(args, images, network.policy), progress)
        for images in (dataset.database, dataset.queries)
    )
    return recall_at(
        queries, database, dataset.right(), RECALLS, group, dataset.queries.xy_m, args.seed,
        dataset.trivial_stamps(),
    )  # fmt: skip


def _shown(label: str, recall: Recall, database: int) -> dict[str, Any]:
    from netvlad_ros.training.recall import looks_misordered

    if looks_misordered(recall, database):
        _log.warning(
            '%s: recall is that of chance at every N: the model is untrained, or the list of '
            'images and the files are not in the same order', label,
        )  # fmt: skip
    parts = [
        f'@{n} {100 * v:.1f} [{100 * recall.intervals[n][0]:.1f}, '
        f'{100 * recall.intervals[n][1]:.1f}]'
        for n, v in recall.values.items()
    ]
    print(f'{label}: recall {", ".join(parts)}')
    return {
        'recall_at': {str(n): value for n, value in recall.values.items()},
        'interval': {str(n): list(bounds) for n, bounds in recall.intervals.items()},
    }


def _sharper(network: DescriptorNetwork, factor: float) -> DescriptorNetwork:
    """Return a copy whose soft assignment has ``factor`` times the alpha."""
    import copy

    import torch

    from netvlad_ros.descriptor.netvlad import NetVLAD

    other = copy.deepcopy(network)
    if not isinstance(other.pooling, NetVLAD):
        raise ConfigError('an alpha sweep needs NetVLAD pooling')
    with torch.no_grad():
        other.pooling.assignment.mul_(factor)
        if other.pooling.bias is not None:
            other.pooling.bias.mul_(factor)
    return other
