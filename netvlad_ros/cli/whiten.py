# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Add PCA whitening to a model, learnt from training database images only.

  netvlad whiten pitts30k_train.mat --images pitts/ --model trained.safetensors --dim 4096 \
      --output whitened.safetensors

Queries never take part, and a test or validation set is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from netvlad_ros.cli.training_data import (
    add_data_arguments,
    check_name,
    image_source,
    report_written,
)
from netvlad_ros.errors import ConfigError

# The authors learn the whitening from at most this many images (addPCA).
LARGEST_SAMPLE = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    parser.add_argument('--model', required=True, help='The bundle to whiten.')
    parser.add_argument('--dim', type=int, default=512, help='Components to keep. Default: 512')
    parser.add_argument('--output', type=Path, required=True, help='The bundle to write.')
    parser.add_argument('--name', help="The model's name. Default: the output's stem")
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: auto'
    )
    parser.add_argument('--seed', type=int, default=0, help='Of the choice of images. Default: 0')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Learn the whitening and write the bundle."""
    from dataclasses import replace

    import numpy as np

    from netvlad_ros.cli.progress import progress
    from netvlad_ros.cli.training_data import open_checked
    from netvlad_ros.descriptor import load_bundle, save_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.whitening import fit_whitening
    from netvlad_ros.training.features import describe
    from netvlad_ros.training.frozen import to_device

    bundle = load_bundle(find_model(args.model))
    name = args.name or args.output.stem
    check_name(bundle, name)
    old = bundle.network
    plain = DescriptorNetwork(old.policy, old.backbone, old.pooling).eval()
    if not 1 <= args.dim <= plain.dim:
        raise ConfigError(f'--dim is {args.dim}, allowed for {args.model}: 1 to {plain.dim}')
    to_device(plain, args.device)
    dataset = open_checked(args)
    if dataset.split in ('test', 'val'):
        raise ConfigError(
            f'{dataset.name} is a {dataset.split} set: whitening is learnt from training images'
        )
    images = dataset.database
    if len(images) > LARGEST_SAMPLE:
        rng = np.random.default_rng(args.seed)
        images = images.take(np.sort(rng.permutation(len(images))[:LARGEST_SAMPLE]))
    if len(images) <= args.dim:
        raise ConfigError(
            f'--dim {args.dim} needs more than {args.dim} database images, {len(images)} of '
            f'{len(dataset.database)} would be described: give more images or a smaller --dim'
        )
    samples = describe(plain, image_source(args, images, old.policy), progress)
    whitening = fit_whitening(samples, args.dim)
    training = {**bundle.info.training, 'whitened_on': f'{dataset.name} {dataset.fingerprint()}'}
    info = replace(
        bundle.info, name=name, training=training, recommended_min_similarity=None
    )
    network = DescriptorNetwork(old.policy, old.backbone, old.pooling, whitening)
    written = save_bundle(args.output, network, info)
    print(f'whitened to {args.dim} dimensions from {len(images)} database images')
    report_written(args.output, written.model_id)
    return {'model_id': written.model_id, 'dim': args.dim, 'images': len(images)}
