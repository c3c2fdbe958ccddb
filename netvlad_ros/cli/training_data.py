# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options and checks that the commands of the training pipeline share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from netvlad_ros.cli.progress import progress
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.training.bags import BagConfig

if TYPE_CHECKING:
    from netvlad_ros.descriptor import ModelBundle
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.preprocess import InputPolicy
    from netvlad_ros.training.images import ImageSource
    from netvlad_ros.training.places import PlaceDataset, PlaceImages

KINDS = ('auto', 'pitts', 'utm', 'msls', 'npz', 'csv', 'walks', 'bag', 'oxford', 'holidays')

T = TypeVar('T')


def add_data_arguments(parser: argparse.ArgumentParser, split: str = 'train') -> None:
    """Declare the dataset and how to read it."""
    parser.add_argument('dataset', type=Path, help='File or folder of the dataset.')
    parser.add_argument('--split', default=split, help=f'Part of the dataset. Default: {split}')
    parser.add_argument(
        '--images', type=Path,
        help='Folder that names in a list are relative to, or that images of recordings go to.',
    )
    parser.add_argument('--kind', choices=KINDS, default='auto', help='Default: auto')
    parser.add_argument(
        '--image-cache', type=Path, metavar='DIR',
        help='Keep the decoded, resized images here as a memory map; later runs reuse it. '
        'Default: not kept, but for recipes that read them in every epoch, in OUTPUT.',
    )
    add_settings(parser.add_argument_group('recordings as datasets'), BagConfig(), 'bag.')


def add_also(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare further datasets; every one of them counts alike, however many images it has."""
    parser.add_argument(
        '--also', type=Path, nargs='*', default=[], metavar='DATASET',
        help=f'Further datasets {what}, each as much as the first.',
    )


def add_settings(
    parser: argparse._ActionsContainer,
    config: Any,
    prefix: str = '',
    only: set[str] | None = None,
) -> None:
    """Declare every setting of a config dataclass as an option; groups get a prefix.

    :param only: names to declare, None for all.
    """
    for item in dataclasses.fields(config):
        if only is not None and item.name not in only:
            continue
        value = getattr(config, item.name)
        name = f'{prefix}{item.name}'
        if dataclasses.is_dataclass(value):
            add_settings(parser, value, f'{name}.')
            continue
        unit = item.metadata.get('unit', '')
        text = item.metadata['description'].replace('%', '%%')
        parser.add_argument(
            f'--{name.replace("_", "-").replace(".", "-")}',
            dest=name,
            type=type(value) if not isinstance(value, bool) else _boolean,
            default=None,
            choices=item.metadata.get('choices') or None,
            metavar=None if item.metadata.get('choices') else item.name.upper(),
            help=f'{text} Default: {value}{" " + unit if unit else ""}',
        )


def setting_names(config: Any, prefix: str = '') -> list[str]:
    """Return the names of all settings of a config dataclass, those of groups with a prefix."""
    names: list[str] = []
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f'{prefix}{item.name}'
        is_group = dataclasses.is_dataclass(value)
        names += setting_names(value, f'{name}.') if is_group else [name]
    return names


def settings_from(args: argparse.Namespace, config: T, prefix: str = '') -> T:
    """Return the config with the given options over its values."""
    changed: T = _with_options(vars(args), config, prefix)
    return changed


def _with_options(values: dict[str, Any], config: Any, prefix: str) -> Any:
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        old, name = getattr(config, item.name), f'{prefix}{item.name}'
        if dataclasses.is_dataclass(old):
            changes[item.name] = _with_options(values, old, f'{name}.')
        elif values.get(name) is not None:
            changes[item.name] = values[name]
    return dataclasses.replace(config, **changes)


def _boolean(text: str) -> bool:
    if text.lower() not in ('true', 'false'):
        raise argparse.ArgumentTypeError(f'{text!r} is neither true nor false')
    return text.lower() == 'true'


def open_checked(args: argparse.Namespace, split: str | None = None) -> PlaceDataset:
    """Open the dataset, check its lists, files and images, and print what it is.

    :param split: a part that is only looked at; by default ``--split``, which a model learns from.
    :raises InputError: something is wrong with it, or a model would learn from what judges it.
    """
    from netvlad_ros.training.places import check_files, self_check
    from netvlad_ros.training.readers import open_dataset

    bag = settings_from(args, BagConfig(), 'bag.')
    dataset = open_dataset(args.dataset, split or args.split, args.images, args.kind, bag)
    if split is None and dataset.split in ('val', 'test'):
        raise InputError(
            f'{dataset.name} is a {dataset.split} set, which is there to judge what learnt from '
            'other images: give the training images, --split train'
        )
    print(f'{dataset.name} {dataset.split}: {self_check(dataset)}')
    check_files(dataset)
    return without_unreadable(dataset)


def open_all(args: argparse.Namespace) -> list[PlaceDataset]:
    """Open what is learnt from: the dataset and those of ``--also``.

    To the latter only the options of recordings apply.
    """
    others = [
        argparse.Namespace(
            **{**vars(args), 'dataset': path, 'split': 'train', 'images': None, 'kind': 'auto'}
        )
        for path in args.also
    ]
    return [open_checked(each) for each in (args, *others)]


def open_held_out(args: argparse.Namespace, training: Sequence[PlaceDataset]) -> PlaceDataset:
    """Open the held-out part: the dataset of ``--val``, else that split of the first dataset.

    :param training: the datasets that train.
    :raises InputError: it cannot be opened, or an image is in both: many kinds of data have no
        splits.
    """
    path = args.val or args.dataset
    others = "others with --val FILE, or --val-split '' to train without validation"
    try:
        held_out = open_checked(
            argparse.Namespace(**{**vars(args), 'dataset': path}), args.val_split
        )
    except InputError as error:
        raise InputError(f'the held-out part: {error}; correct it, or give {others}') from error
    trains = {file.resolve() for dataset in training for file in dataset.all_images().paths}
    files = held_out.all_images().paths
    both = [file for file in files if file.resolve() in trains]
    if both:
        raise InputError(
            f'split {args.val_split!r} of {str(path)!r} holds {len(both)} images that also train '
            f'(of {len(files)}), such as {str(both[0])!r}: give another --split, {others}'
        )
    return held_out


def without_unreadable(dataset: PlaceDataset) -> PlaceDataset:
    """Return the dataset without images that cannot be used; their number is printed."""
    import numpy as np

    from netvlad_ros.training.images import unreadable

    parts = []
    for images in (dataset.database, dataset.queries):
        bad = unreadable(images.paths, progress)
        if bad:
            print(f'skipped {len(bad)} unreadable images of {len(images)}')
        parts.append(images.take(np.setdiff1d(np.arange(len(images)), bad)) if bad else images)
    return dataclasses.replace(dataset, database=parts[0], queries=parts[1])


def image_source(
    args: argparse.Namespace, images: PlaceImages, policy: InputPolicy
) -> ImageSource:
    """Return decoded images, from the cache of resized ones if that is asked for."""
    from netvlad_ros.training.images import ImageFiles, ImageMap

    files = ImageFiles(images.paths, policy)
    if args.image_cache is None:
        return files
    return ImageMap(files, args.image_cache, progress)


def check_name(bundle: ModelBundle, name: str) -> None:
    """Raise before a long training if its result could not be written under this name.

    :raises ModelError: the name has characters that a file name should not have.
    """
    from netvlad_ros.descriptor import BundleInfo
    from netvlad_ros.descriptor.bundle import make_bundle

    make_bundle(bundle.network, BundleInfo(name))


def report_written(path: Path, model_id: str) -> None:
    """Print the model that was written."""
    print(f'{path}: {model_id}, {path.stat().st_size / 1e6:.1f} MB')


def train_only(network: DescriptorNetwork, prefixes: list[str] | None) -> None:
    """Let pooling, whitening and the named layers of the backbone train.

    :param prefixes: of the backbone's parameters; None for those that its table names.
    :raises ConfigError: there is nothing to train.
    """
    from netvlad_ros.descriptor.backbones import Backbone

    if not isinstance(network.backbone, Backbone):
        raise ConfigError('RootSIFT has nothing to train')
    network.requires_grad_(True)
    network.backbone.train_only(None if prefixes is None else tuple(prefixes))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            f'there is nothing to train: {network.pooling.kind} pooling has no parameters, the '
            'model has no whitening, and --train-layers names no layer'
        )
