# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Open a place dataset of any kind that this package knows, by what it looks like on disk.

========  ====================================================================================
kind      what it is
========  ====================================================================================
pitts     a ``dbStruct`` ``.mat`` (Pittsburgh, Tokyo Time Machine, Tokyo 24/7)
utm       folder ``SPLIT/database`` and ``SPLIT/queries``, UTM position in the file names
msls      Mapillary Street-Level Sequences, a city's folder or the folder of cities
npz       ``utmDb``, ``utmQ``, ``posDistThr`` beside two lists of image names
csv       one table ``path,east_m,north_m,split[,role][,stamp]``
walks     a table ``image,split,area`` of frames in the order of walks, without positions
bag       a rosbag2 or sequence folder with poses, or a folder of such
========  ====================================================================================
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Optional, Union

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import is_recording
from netvlad_ros.training.bags import BagConfig, read_bag, read_bags, recordings_in
from netvlad_ros.training.places import PlaceDataset
from netvlad_ros.training.tables import reading

KINDS = ('pitts', 'utm', 'msls', 'npz', 'csv', 'walks', 'bag')


def open_dataset(
    path: Union[str, Path],
    split: str = 'train',
    images: Optional[Union[str, Path]] = None,
    kind: str = 'auto',
    bag: Optional[BagConfig] = None,
) -> PlaceDataset:
    """Return one split of a dataset.

    :param path: file or folder.
    :param split: 'train', 'val' or 'test' where the data hold several.
    :param images: folder that names in a list are relative to, or that images of a recording are
        written to; by default beside the list or recording.
    :param bag: how a recording is read.
    :raises InputError: the path is missing, of no known kind or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f'dataset {str(path)!r} does not exist')
    root = None if images is None else Path(images)
    kind = guess_kind(path) if kind == 'auto' else kind
    if kind == 'pitts':
        from netvlad_ros.training.pitts import read_pitts

        return read_pitts(path, root)
    if kind == 'bag':
        if is_recording(path):
            return read_bag(path, split, root, bag)
        if path.is_dir() and recordings_in(path):
            return read_bags(path, split, root, bag)
        raise InputError(f'{str(path)!r} is no recording and has none in it')
    from netvlad_ros.training import lists

    if kind == 'utm':
        return lists.read_utm_folder(path, split)
    if kind == 'msls':
        return lists.read_msls(path, split)
    if kind == 'npz':
        return lists.read_npz(path, root)
    if kind in ('csv', 'walks'):
        from netvlad_ros.training import tables

        read = tables.read_csv if kind == 'csv' else tables.read_walks
        return read(path, split, root)
    raise InputError(f'dataset kind is {kind!r}, allowed: auto, {", ".join(KINDS)}')


def guess_kind(path: Path) -> str:
    """Return the kind of a dataset from its name and first line.

    :raises InputError: it looks like none of them.
    """
    suffix = path.suffix.lower()
    if suffix == '.mat':
        return 'pitts'
    if suffix == '.npz':
        return 'npz'
    if is_recording(path):
        return 'bag'
    if suffix == '.csv':
        return _table_kind(path)
    if path.is_dir():
        table = path / 'images.csv'
        if table.is_file():
            return _table_kind(table)
        if any(path.glob('**/query/raw.csv')):
            return 'msls'
        if any((path / s / 'database').is_dir() for s in ('.', 'train', 'val', 'test')) or any(
            (path / 'images' / s / 'database').is_dir() for s in ('train', 'val', 'test')
        ):
            return 'utm'
        if recordings_in(path):
            return 'bag'
    raise InputError(
        f'{str(path)!r} looks like no known dataset: say which with --kind {"|".join(KINDS)}'
    )


def _table_kind(path: Path) -> str:
    with reading(path), path.open(newline='', encoding='utf-8-sig') as stream:
        header = set(next(csv.reader(stream), []))
    if {'path', 'east_m', 'north_m'} <= header:
        return 'csv'
    if {'image', 'area'} <= header:
        return 'walks'
    raise InputError(
        f'{str(path)!r} has columns {sorted(header)}, expected path,east_m,north_m,split (with '
        'positions) or image,split,area (walks)'
    )
