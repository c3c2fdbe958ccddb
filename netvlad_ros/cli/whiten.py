# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Add a whitening to a model, learnt from training images only.

Method pca is the paper's: database images, never queries. Method discriminant also looks at what
changes within a place, in augmented views of each image and between images of one place, and
keeps what does not; it needs more images times views than the descriptor has dimensions. A test or
validation set is refused.

  netvlad whiten pitts30k_train.mat --images pitts/ --model trained.safetensors --dim 4096 \
      --output whitened.safetensors
  netvlad whiten walks/ --also streets/ --method discriminant --views 8 --model start.safetensors \
      --output whitened.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from netvlad_ros.cli.training_data import (
    add_also,
    add_data_arguments,
    add_settings,
    check_name,
    image_source,
    report_written,
    settings_from,
)
from netvlad_ros.errors import ConfigError
from netvlad_ros.training.augment import AugmentConfig

if TYPE_CHECKING:
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.whitening import Whitening
    from netvlad_ros.training.places import PlaceDataset

# The authors learn the whitening from at most this many images (addPCA).
LARGEST_SAMPLE = 10_000
METHODS = ('pca', 'discriminant')
# Differences of one place for each dimension of the descriptor.
DIFFERENCES = 20
# Two matrices of this size squared are decomposed: 0.5 GB each, some minutes.
LARGEST_DISCRIMINANT = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    add_also(parser, 'to learn from')
    parser.add_argument('--model', required=True, help='The bundle to whiten.')
    parser.add_argument(
        '--dim', type=int, default=512, help='Components to keep. Default: 512'
    )
    parser.add_argument('--method', choices=METHODS, default='pca', help='Default: pca')
    parser.add_argument('--output', type=Path, required=True, help='The bundle to write.')
    parser.add_argument('--name', help="The model's name. Default: the output's stem")
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: auto'
    )
    parser.add_argument('--seed', type=int, default=0, help='Of everything random. Default: 0')
    parser.add_argument(
        '--strength', type=float, default=1.0,
        help='Method pca: 1 gives all components one variance, 0 leaves each its own, 0.5 takes '
        'the square root of it. Default: 1',
    )
    group = parser.add_argument_group('method discriminant')
    group.add_argument(
        '--views', type=int, default=8,
        help='Views of an image: one plain, the others augmented. Default: 8',
    )
    add_settings(group, AugmentConfig(), 'augment.')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Learn the whitening and write the bundle."""
    from dataclasses import replace

    from netvlad_ros.cli.training_data import open_all
    from netvlad_ros.descriptor import load_bundle, save_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.training.frozen import to_device

    bundle = load_bundle(find_model(args.model))
    name = args.name or args.output.stem
    check_name(bundle, name)
    old = bundle.network
    plain = DescriptorNetwork(
        old.policy, old.backbone, old.pooling, local_projection=old.local_projection
    ).eval()
    if not 1 <= args.dim <= plain.dim:
        raise ConfigError(f'--dim is {args.dim}, allowed for {args.model}: 1 to {plain.dim}')
    if not 0.0 <= args.strength <= 1.0:
        raise ConfigError(f'--strength is {args.strength}, allowed: 0 to 1')
    if args.strength != 1.0 and args.method != 'pca':
        raise ConfigError('--strength is a setting of --method pca')
    if args.views < 1:
        raise ConfigError(f'--views is {args.views}, allowed: 1 and more')
    to_device(plain, args.device)
    datasets = open_all(args)
    learn = _discriminant if args.method == 'discriminant' else _pca
    whitening, count = learn(args, plain, datasets)
    learnt_on = ', '.join(f'{dataset.name} {dataset.fingerprint()}' for dataset in datasets)
    training = {
        **bundle.info.training, 'whitened_on': learnt_on, 'whitened_by': args.method,
        'whitening_strength': args.strength,
    }  # fmt: skip
    info = replace(
        bundle.info, name=name, training=training, recommended_min_similarity=None
    )
    network = DescriptorNetwork(
        old.policy, old.backbone, old.pooling, whitening, old.local_projection
    )
    written = save_bundle(args.output, network.cpu(), info)
    print(f'whitened to {args.dim} dimensions by {args.method} from {count} images')
    report_written(args.output, written.model_id)
    return {'model_id': written.model_id, 'dim': args.dim, 'images': count}


def _pca(
    args: argparse.Namespace, plain: DescriptorNetwork, datasets: list[PlaceDataset]
) -> tuple[Whitening, int]:
    """Return the whitening and how many images it is from; each dataset gives as many."""
    import numpy as np

    from netvlad_ros.cli.progress import progress
    from netvlad_ros.descriptor.whitening import fit_whitening
    from netvlad_ros.training.features import describe

    largest = LARGEST_SAMPLE // len(datasets)
    share = min(largest, *(len(dataset.database) for dataset in datasets))
    count = share * len(datasets)
    if count <= args.dim:
        raise ConfigError(
            f'--dim {args.dim} needs more than {args.dim} database images, {count} of '
            f'{sum(len(dataset.database) for dataset in datasets)} would be described: give more '
            'images or a smaller --dim'
        )
    rng = np.random.default_rng(args.seed)
    samples = []
    for dataset in datasets:
        images = dataset.database
        if len(images) > share:
            images = images.take(np.sort(rng.permutation(len(images))[:share]))
        samples.append(describe(plain, image_source(args, images, plain.policy), progress))
    return fit_whitening(np.concatenate(samples), args.dim, args.strength), count


def _discriminant(
    args: argparse.Namespace, plain: DescriptorNetwork, datasets: list[PlaceDataset]
) -> tuple[Whitening, int]:
    """Return the whitening and how many images it is from; each dataset gives as many samples."""
    import numpy as np

    from netvlad_ros.cli.progress import progress
    from netvlad_ros.descriptor.whitening import fit_discriminant
    from netvlad_ros.training.augment import Augment
    from netvlad_ros.training.features import describe
    from netvlad_ros.training.images import at_one_size
    from netvlad_ros.training.place_differences import AugmentedImages, place_differences
    from netvlad_ros.training.relations import relations_of

    if plain.dim > LARGEST_DISCRIMINANT:
        raise ConfigError(
            f'{args.model} gives {plain.dim} values, method discriminant takes at most '
            f'{LARGEST_DISCRIMINANT}: use --method pca, or fewer clusters'
        )
    share = min(args.views * len(dataset.all_images()) for dataset in datasets)
    if share * len(datasets) <= plain.dim:
        raise ConfigError(
            f'{share * len(datasets)} descriptors (images times --views) are too few for '
            f'{plain.dim} dimensions: give more images or more views'
        )
    augment = Augment(settings_from(args, AugmentConfig(), 'augment.'))
    rng = np.random.default_rng(args.seed)
    samples, differences = [], []
    for dataset in datasets:
        relations = relations_of(dataset)
        images = image_source(args, relations.images, at_one_size(plain.policy))
        rows = [describe(plain, images, progress)]
        for view in range(1, args.views):
            rows.append(
                describe(plain, AugmentedImages(images, augment, view, args.seed), progress)
            )
        views_vnd = np.stack(rows)
        samples.append(rng.permutation(views_vnd.reshape(-1, plain.dim))[:share])
        count = DIFFERENCES * plain.dim // len(datasets)
        differences.append(place_differences(views_vnd, relations, count, args.seed))
    whitening = fit_discriminant(np.concatenate(samples), np.concatenate(differences), args.dim)
    return whitening, sum(len(dataset.all_images()) for dataset in datasets)
