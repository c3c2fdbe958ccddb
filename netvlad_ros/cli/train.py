# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
r"""Train a model on a dataset of places, by the paper's procedure or a modern one.

Recipe relja is the paper's: the weakly supervised triplet ranking loss on tuples mined from a
cache; a whitening is learnt from the result. nanne and benchmark reproduce the choices of two
ports. Recipe modern trains on place-labelled batches with the multi-similarity loss; layers that
do not train run once for a few augmented views of each image, so that a CPU is enough for a small
model.

  netvlad cluster walks/ --backbone mobilenet_v2_s16 --weights mobilenet_v2.safetensors \
      --normalise half --clusters 16 --output start.safetensors
  netvlad whiten walks/ --model start.safetensors --dim 512 --output white.safetensors
  netvlad train walks/ --model white.safetensors --recipe modern --output run/

  netvlad train pitts30k_train.mat --images pitts/ --val pitts30k_val.mat --recipe relja \
      --model start.safetensors --output run/
  netvlad train drive/ --from-bag --output mine/       fine-tunes the shipped model
  torchrun --nproc-per-node 4 -m netvlad_ros.cli.main train ...        four GPUs
      (the triplet recipes: relja, nanne, benchmark)

OUTPUT holds model.safetensors (the bundle), best and last checkpoints, log.jsonl and curves for
TensorBoard (tensorboard --logdir OUTPUT).
--resume continues after an interruption to the same result.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netvlad_ros.cli.progress import progress
from netvlad_ros.cli.train_triplet import add_triplet_settings, train_triplet
from netvlad_ros.cli.training_data import (
    add_also,
    add_data_arguments,
    add_settings,
    check_name,
    image_source,
    open_all,
    open_held_out,
    report_written,
    setting_names,
    settings_from,
    train_only,
)
from netvlad_ros.errors import ConfigError
from netvlad_ros.training.settings import TRIPLET_RECIPES, ModernConfig

if TYPE_CHECKING:
    from netvlad_ros.descriptor import ModelBundle
    from netvlad_ros.training.modern import ModernData
    from netvlad_ros.training.places import PlaceDataset

RECIPES = ('relja', 'nanne', 'benchmark', 'modern')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_arguments(parser)
    add_also(parser, 'to train on (recipe modern)')
    parser.add_argument(
        '--from-bag', action='store_true',
        help='DATASET is a recording with poses or a folder of such: recipe modern on the first '
        'part of each, recall before and after on the last, a time gap between (--bag-gap-s).',
    )
    parser.add_argument('--model', default='default', help='Bundle to start from.')
    parser.add_argument('--recipe', choices=RECIPES, help='Default: relja; modern with --from-bag')
    parser.add_argument('--output', type=Path, required=True, help='Folder of the run.')
    parser.add_argument('--name', help="The model's name. Default: the folder's name")
    parser.add_argument('--val', type=Path, help='Held-out dataset, if not a split of DATASET.')
    parser.add_argument('--val-split', default='val', help="Held-out split. Default: val; '' none")
    parser.add_argument(
        '--train-layers', nargs='*', metavar='PREFIX',
        help="Parameters of the backbone that train; none after '--train-layers' alone.",
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda. Default: auto')
    parser.add_argument('--resume', action='store_true', help='Continue the run in OUTPUT.')
    parser.add_argument(
        '--frozen-cache', action='store_true',
        help='Triplet recipes: run the layers that do not train once and keep their outputs.',
    )
    add_settings(parser.add_argument_group('recipe modern'), ModernConfig())
    add_triplet_settings(parser, {item.name for item in fields(ModernConfig)})


def run(args: argparse.Namespace) -> dict[str, object]:
    """Train and write the bundle."""
    from netvlad_ros.training.frozen import device_named

    if (args.output / 'last.safetensors').exists() and not args.resume:
        raise ConfigError(
            f'{str(args.output)!r} holds a run: continue it with --resume or give another folder'
        )
    if args.from_bag:
        args.kind = 'bag'
    args.recipe = args.recipe or ('modern' if args.from_bag else 'relja')
    _refuse_options_of_others(args)
    _refuse_options_of_others(args)
    if args.recipe == 'modern':
        if (processes := int(os.environ.get('WORLD_SIZE', '1'))) > 1:
            raise ConfigError(
                f'recipe modern trains in one process, torchrun started {processes}: start it '
                'without torchrun, or give a triplet recipe'
            )
        return _modern(args)
    return train_triplet(args, device_named(args.device))


def _refuse_options_of_others(args: argparse.Namespace) -> None:
    """Raise for an option that would not act.

    :raises ConfigError: it belongs to another recipe.
    """
    modern, triplet = (
        {*setting_names(config), *others}
        for config, others in (
            (ModernConfig(), ('also',)), (TRIPLET_RECIPES['relja'], ('frozen_cache',))
        )
    )
    foreign, owner = (triplet - modern, 'the triplet recipes')
    if args.recipe != 'modern':
        foreign, owner = modern - triplet, 'recipe modern'
    for name in sorted(foreign):
        if vars(args)[name] not in (None, False, []):
            option = name.replace('_', '-').replace('.', '-')
            raise ConfigError(f'--{option} is of {owner}: recipe {args.recipe} has no such option')


def _modern(args: argparse.Namespace) -> dict[str, object]:
    from netvlad_ros.descriptor import BundleInfo, load_bundle, save_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.evaluation.sources import is_recording
    from netvlad_ros.training.frozen import to_device
    from netvlad_ros.training.images import size_note
    from netvlad_ros.training.modern import ModernTrainer, load_best, mixed

    config = settings_from(args, ModernConfig())
    bundle = load_bundle(find_model(args.model))
    check_name(bundle, args.name or args.output.name)
    if note := size_note(bundle.policy):
        print(note)
    start = {key: value.clone() for key, value in bundle.network.state_dict().items()}
    network = bundle.network
    train_only(network, args.train_layers)
    # First of all: the layers that do not train run there too.
    to_device(network, args.device)
    datasets = open_all(args)
    held_out, held_out_hash = None, None
    if args.val_split:
        part = open_held_out(args, datasets)
        # Of several recordings each has a held-out part of its own.
        if args.from_bag and args.val is None and is_recording(args.dataset):
            _report_gap(datasets[0], part)
        held_out_hash = part.fingerprint()
        held_out = _data(args, bundle, [part], replace(config, views=2))
    train = _data(args, bundle, datasets, config)
    provenance = _provenance(args, bundle, datasets, config)
    provenance['held_out_hash'] = held_out_hash
    trainer = ModernTrainer(network, train, held_out, config, args.output, provenance)
    before = None if held_out is None else trainer.judge(held_out)
    losses = trainer.run(args.resume, progress)
    load_best(args.output, network)
    mixed(network, start, config.start_share)
    after = None if held_out is None else trainer.judge(held_out)
    for text, scores in (('before', before), ('after', after)):
        if scores is not None:
            print(
                f'{text}: recall@1 {100 * scores.recall_at_1:.1f} %, average precision '
                f'{100 * scores.average_precision:.1f} % of {scores.queries} held-out images'
            )
    info = BundleInfo(
        args.name or args.output.name,
        licence=bundle.info.licence,
        source=bundle.info.source,
        training=provenance,
    )
    path = args.output / 'model.safetensors'
    written = save_bundle(path, network.cpu(), info)
    report_written(path, written.model_id)
    return {
        'model_id': written.model_id, 'steps': len(losses), 'last_loss': losses[-1],
        'before': None if before is None else vars(before),
        'after': None if after is None else vars(after),
    }  # fmt: skip


def _report_gap(train: PlaceDataset, held_out: PlaceDataset) -> None:
    """Print how far in time the held-out part of a recording is from the part that trains."""
    first, last = held_out.all_images().stamp, train.all_images().stamp
    if first is not None and last is not None:
        print(
            f'held out: the last {len(first)} images, {first.min() - last.max():.1f} s after the '
            f'last of {len(last)} that train'
        )


def _data(
    args: argparse.Namespace,
    bundle: ModelBundle,
    datasets: list[PlaceDataset],
    config: ModernConfig,
) -> ModernData:
    """Return frozen outputs and relations of all images of the datasets."""
    import hashlib
    import json

    from netvlad_ros.config import to_dict
    from netvlad_ros.training.augment import Augment
    from netvlad_ros.training.frozen import frozen_hash, frozen_views
    from netvlad_ros.training.images import at_one_size, files_hash
    from netvlad_ros.training.modern import ModernData
    from netvlad_ros.training.relations import joined, relations_of

    relations = joined([relations_of(dataset) for dataset in datasets])
    identity = [
        files_hash(relations.images.paths), frozen_hash(bundle.network),
        config.views, config.seed, to_dict(config.augment),
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    views = frozen_views(
        bundle.network,
        image_source(args, relations.images, at_one_size(bundle.policy)),
        args.output / f'frozen-{digest}.npy',
        Augment(config.augment),
        config.views,
        config.seed,
        progress,
    )
    return ModernData(views, relations)


def _provenance(
    args: argparse.Namespace, bundle: ModelBundle, datasets: list[PlaceDataset], config: Any
) -> dict[str, Any]:
    from netvlad_ros.config import to_dict
    from netvlad_ros.training.checkpoint import commit_of_code

    return {
        'recipe': args.recipe,
        'start': bundle.model_id,
        'data': [f'{dataset.name} {dataset.split}'.strip() for dataset in datasets],
        'data_hash': [dataset.fingerprint() for dataset in datasets],
        'seed': config.seed,
        'commit': commit_of_code(),
        'config': to_dict(config),
        'train_layers': args.train_layers,
    }
