# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The triplet recipes of ``netvlad train``: relja, nanne and benchmark."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netvlad_ros.cli.progress import progress
from netvlad_ros.cli.training_data import (
    add_settings,
    check_name,
    image_source,
    open_all,
    open_held_out,
    report_written,
    settings_from,
    train_only,
)
from netvlad_ros.training.settings import TRIPLET_RECIPES

if TYPE_CHECKING:
    from netvlad_ros.descriptor import ModelBundle
    from netvlad_ros.training.places import PlaceDataset, PlaceImages
    from netvlad_ros.training.triplet import TripletData


def train_triplet(args: argparse.Namespace, device: str) -> dict[str, object]:
    """Train by one of the recipes, write the bundle, and report recall before and after."""
    from netvlad_ros.config import to_dict
    from netvlad_ros.descriptor import BundleInfo, load_bundle, save_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.training.checkpoint import commit_of_code, load_weights
    from netvlad_ros.training.distributed import Workers
    from netvlad_ros.training.frozen import Tail
    from netvlad_ros.training.images import size_note
    from netvlad_ros.training.triplet import TripletTrainer

    config = settings_from(args, TRIPLET_RECIPES[args.recipe])
    workers = Workers.from_environment()
    bundle = load_bundle(find_model(args.model))
    check_name(bundle, args.name or args.output.name)
    if (note := size_note(bundle.policy)) and workers.is_first:
        print(note)
    network = bundle.network
    if args.recipe == 'relja' and network.whitening is not None:
        network.whitening = None
        if workers.is_first:
            print(
                "the start's whitening is left out: the paper trains without one; learn it anew "
                "from the result with 'netvlad whiten'"
            )
    train_only(network, args.train_layers)
    network.to(device)
    [dataset] = open_all(args)
    val = _data(args, bundle, open_held_out(args, [dataset])) if args.val_split else None
    train = _data(args, bundle, dataset)
    provenance: dict[str, Any] = {
        'recipe': args.recipe, 'start': bundle.model_id,
        'data': f'{dataset.name} {dataset.split}'.strip(), 'data_hash': dataset.fingerprint(),
        'held_out_hash': None if val is None else val.dataset.fingerprint(),
        'seed': config.seed, 'commit': commit_of_code(),
        'config': to_dict(config), 'train_layers': args.train_layers,
    }  # fmt: skip
    trained = Tail(network) if args.frozen_cache else network
    trainer = TripletTrainer(trained, train, val, config, args.output, provenance, workers)
    before = None if val is None else trainer.validate(val, progress)
    losses = trainer.run(args.resume, progress)
    load_weights(args.output / 'best.safetensors', trained)
    after = None if val is None else trainer.validate(val, progress)
    if val is not None and workers.is_first:
        print(f'chosen: epoch {trainer.best_epoch + 1} of {trainer.epoch}, by recall@5')
    for text, recalls in (('before', before), ('after', after)):
        if recalls is not None and workers.is_first:
            shown = ', '.join(f'recall@{n} {100 * v:.1f} %' for n, v in recalls.items())
            print(f'{text}: {shown} on {val.dataset.name if val else ""} {args.val_split}')
    info = BundleInfo(
        args.name or args.output.name, bundle.info.licence, bundle.info.source,
        provenance,
    )  # fmt: skip
    path = args.output / 'model.safetensors'
    if workers.is_first:
        written = save_bundle(path, network.cpu(), info)
        report_written(path, written.model_id)
    workers.barrier()
    workers.close()
    return {
        'model': str(path), 'batches': len(losses), 'last_loss': losses[-1] if losses else None,
        'before': before, 'after': after,
    }  # fmt: skip


def _data(args: argparse.Namespace, bundle: ModelBundle, dataset: PlaceDataset) -> TripletData:
    from netvlad_ros.training.triplet import TripletData

    sources = [_source(args, bundle, part) for part in (dataset.database, dataset.queries)]
    return TripletData(dataset, *sources)


def _source(args: argparse.Namespace, bundle: ModelBundle, images: PlaceImages) -> Any:
    """Return decoded images, or the frozen layers' outputs of them."""
    from netvlad_ros.training.frozen import FrozenSource, frozen_hash, frozen_views
    from netvlad_ros.training.images import ImageFiles, at_one_size, files_hash, kept_decoded

    policy = at_one_size(bundle.policy)
    if not args.frozen_cache and args.image_cache is None:
        return kept_decoded(ImageFiles(images.paths, policy), args.output, progress)
    source = image_source(args, images, policy)
    if not args.frozen_cache:
        return source
    identity = f'{frozen_hash(bundle.network)} {files_hash(images.paths)}'
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    file = Path(args.output) / f'frozen-{digest}.npy'
    return FrozenSource(frozen_views(bundle.network, source, file, progress=progress))


def add_triplet_settings(parser: argparse.ArgumentParser, taken: set[str]) -> None:
    """Declare the settings of the triplet recipes that another recipe has not declared."""
    group = parser.add_argument_group(
        'recipes relja, nanne, benchmark', 'Defaults are those of relja.'
    )
    fields = [f for f in dataclasses.fields(TRIPLET_RECIPES['relja']) if f.name not in taken]
    add_settings(group, TRIPLET_RECIPES['relja'], only={f.name for f in fields})
