# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Start a model: a pretrained backbone with NetVLAD initialised by k-means.

As the paper's appendix A: 50,000 local features of training database images, 100 of each, all of
them clustered. Training starts from the result; without this step recall is about halved.
The paper's images of Pitts30k are 640x480, which --width and --height set.

  netvlad cluster pitts30k_train.mat --images pitts/ --backbone vgg16 --weights vgg16.safetensors \
      --width 640 --height 480 --output start.safetensors
  netvlad cluster walks/ --backbone mobilenet_v2_s16 --weights mobilenet_v2.safetensors \
      --normalise half --clusters 16 --output start.safetensors
  netvlad cluster walks/ --model start.safetensors --clusters 8 --local-dim 64 \
      --output small.safetensors
  netvlad cluster walks/ --model start.safetensors --pooling vlad --output vlad.safetensors
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from netvlad_ros.cli.numbers import positive_int
from netvlad_ros.cli.training_data import (
    add_also,
    add_data_arguments,
    image_source,
    report_written,
)
from netvlad_ros.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from netvlad_ros.descriptor.network import Encoder
    from netvlad_ros.descriptor.preprocess import InputPolicy

POOLINGS = ('netvlad', 'vlad', 'max', 'average', 'gem', 'none')
NORMALISATIONS = ('imagenet', 'half')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    add_also(parser, 'to cluster')
    parser.add_argument('--output', type=Path, required=True, help='The bundle to write.')
    parser.add_argument('--name', help="The model's name. Default: the output's stem")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--model', help='Take backbone and input from this bundle.')
    source.add_argument('--backbone', help='Backbone by name, or rootsift.')
    parser.add_argument(
        '--weights', type=Path,
        help='torchvision checkpoint of the backbone, .safetensors or .pth; random if not given.',
    )
    parser.add_argument(
        '--normalise', choices=NORMALISATIONS, default='imagenet',
        help='What the weights expect: ImageNet mean and deviation, or 0.5 each.',
    )
    parser.add_argument(
        '--width', type=positive_int, default=320, help='Input width. Default: 320 px'
    )
    parser.add_argument(
        '--height', type=positive_int, default=240, help='Input height. Default: 240 px'
    )
    parser.add_argument('--pooling', choices=POOLINGS, default='netvlad', help='Default: netvlad')
    parser.add_argument(
        '--netvlad-version', choices=('v1', 'v2'), default='v1',
        help="v1 as in all published weights, v2 as in the paper's equations. Default: v1",
    )
    parser.add_argument('--clusters', type=positive_int, default=64, help='Default: 64')
    parser.add_argument(
        '--local-dim', type=positive_int, metavar='P',
        help='Reduce local features to P dimensions by PCA before they are clustered and pooled.',
    )
    parser.add_argument('--descriptors', type=positive_int, default=50000, help='Default: 50000')
    parser.add_argument('--per-image', type=positive_int, default=100, help='Default: 100')
    parser.add_argument(
        '--device', choices=('auto', 'cpu', 'cuda'), default='auto', help='Default: auto'
    )
    parser.add_argument('--seed', type=int, default=0, help='Default: 0')


def run(args: argparse.Namespace) -> dict[str, object]:
    """Cluster and write the bundle."""
    from netvlad_ros.cli.progress import progress
    from netvlad_ros.cli.training_data import open_all
    from netvlad_ros.config import validate
    from netvlad_ros.descriptor import BundleInfo, save_bundle
    from netvlad_ros.descriptor.bundle import make_bundle
    from netvlad_ros.descriptor.local_projection import LocalProjection
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.poolings import make_pooling
    from netvlad_ros.training.checkpoint import commit_of_code
    from netvlad_ros.training.clustering import ClusterConfig, init_pooling
    from netvlad_ros.training.frozen import to_device

    config = ClusterConfig(
        clusters=args.clusters, descriptors=args.descriptors, per_image=args.per_image,
        seed=args.seed,
    )  # fmt: skip
    validate(config, 'cluster.')
    backbone, policy, licence, source = _start(args)
    local_projection = None
    if args.local_dim is not None:
        if args.pooling not in ('netvlad', 'vlad'):
            raise ConfigError(f'--local-dim goes with netvlad and vlad, not {args.pooling}')
        if not 1 <= args.local_dim <= backbone.channels:
            raise ConfigError(
                f'--local-dim is {args.local_dim}, allowed for {backbone.name}: 1 to '
                f'{backbone.channels}'
            )
        local_projection = LocalProjection(backbone.channels, args.local_dim)
    pooling = make_pooling(
        {'kind': args.pooling, 'version': args.netvlad_version},
        args.clusters,
        args.local_dim or backbone.channels,
    )
    network = DescriptorNetwork(
        policy, backbone, pooling, local_projection=local_projection
    ).eval()
    name = args.name or args.output.stem
    make_bundle(network, BundleInfo(name))  # a name that is not allowed is found here
    to_device(network, args.device)
    datasets = open_all(args)
    alpha = None
    if hasattr(pooling, 'init_from_clusters'):
        images = [image_source(args, dataset.database, policy) for dataset in datasets]
        alpha = init_pooling(network, images, config, progress)
        print(f'{args.clusters} clusters, alpha {alpha:.2f}')
    training = {
        'recipe': 'cluster', 'data': ', '.join(dataset.name for dataset in datasets),
        'data_hash': ', '.join(dataset.fingerprint() for dataset in datasets),
        'seed': args.seed, 'commit': commit_of_code(),
    }  # fmt: skip
    info = BundleInfo(name, licence=licence, source=source, training=training)
    bundle = save_bundle(args.output, network, info)
    report_written(args.output, bundle.model_id)
    # Hard assignment has an infinite one, which JSON does not know.
    alpha = None if alpha == math.inf else alpha
    return {'model_id': bundle.model_id, 'alpha': alpha, 'dim': bundle.dim}


def _start(args: argparse.Namespace) -> tuple[Encoder, InputPolicy, str, str]:
    """Return backbone, input policy, licence and source to start from."""
    from netvlad_ros.descriptor import load_bundle
    from netvlad_ros.descriptor.backbones import load_torchvision_state, make_backbone
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.descriptor.preprocess import InputPolicy
    from netvlad_ros.descriptor.rootsift import RootSift

    if args.model is not None:
        bundle = load_bundle(find_model(args.model))
        return bundle.network.backbone, bundle.policy, bundle.info.licence, bundle.info.source
    if args.backbone == RootSift.name:
        policy = InputPolicy(height=args.height, width=args.width)
        return RootSift(), policy, 'Apache-2.0', 'RootSIFT of OpenCV'
    backbone = make_backbone(args.backbone)
    if args.weights is not None:
        load_torchvision_state(backbone, _read_weights(args.weights))
    half = (0.5, 0.5, 0.5)
    policy = (
        InputPolicy(mean=half, std=half, height=args.height, width=args.width)
        if args.normalise == 'half'
        else InputPolicy(height=args.height, width=args.width)
    )
    source = f'backbone from {args.weights.name}' if args.weights else 'random backbone'
    return backbone, policy, '', source


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or .pth file, unpickling nothing but tensors.

    :raises ModelError: the file is missing, damaged or holds anything else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from netvlad_ros.descriptor.importers.torch_files import read_state

    if path.suffix != '.safetensors':
        return read_state(path)
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f'cannot read weights {str(path)!r}: {error}') from error
