# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets in one table: images with positions, or frames of walks without any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import csv
from pathlib import Path
import re
from typing import Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.training.places import PlaceDataset, PlaceImages
from netvlad_ros.types import FloatArray

ROLES = ('database', 'query')

# Every fourth image of a place is asked for where the table does not say which are queries.
_QUERY_EVERY = 4

# Walks are put this far apart, so that no two of them ever count as near.
WALK_SPACING_M = 1000.0

_FRAME = re.compile(r'^(?P<walk>.*?)(?P<frame>\d+)$')


def read_csv(path: Path, split: str, root: Optional[Path] = None) -> PlaceDataset:
    """Read ``path,east_m,north_m,split[,role][,stamp]``; role is database or query.

    Case of a split, and spaces around it, do not count. Without roles every fourth image of the
    split, in the table's order, is a query.

    :raises InputError: a column or value is missing or wrong, with its line.
    """
    path = _table_of(path)
    root = root or path.parent
    split = split.strip().lower()
    rows = [
        (line, row)
        for line, row in _rows(path)
        if (row.get('split', split) or '').strip().lower() == split
    ]
    if not rows:
        raise InputError(f'{str(path)!r} has no row of split {split!r}')
    xy_m = np.array(
        [[_number(path, line, row, key) for key in ('east_m', 'north_m')] for line, row in rows]
    )
    stamp: Optional[FloatArray] = None
    if all(row.get('stamp') for _, row in rows):
        stamp = np.array([_number(path, line, row, 'stamp') for line, row in rows])
    images = PlaceImages(tuple(root / row['path'] for _, row in rows), xy_m, stamp)
    roles = [row.get('role') or '' for _, row in rows]
    if wrong := sorted(set(roles) - {*ROLES, ''}):
        raise InputError(f'{str(path)!r}: role is {wrong[0]!r}, allowed: {", ".join(ROLES)}')
    if any(roles):
        is_query = np.array([role == 'query' for role in roles])
    else:
        is_query = np.arange(len(rows)) % _QUERY_EVERY == _QUERY_EVERY - 1
    return PlaceDataset(
        name=path.parent.name if path.name == 'images.csv' else path.stem,
        database=images.take(np.flatnonzero(~is_query)),
        queries=images.take(np.flatnonzero(is_query)),
        split=split,
    )


def read_walks(
    path: Path, split: str, root: Optional[Path] = None, step_m: float = 1.0
) -> PlaceDataset:
    """Read frames of walks that have an order but no positions: ``image,split,area[,floor]``.

    Frames of a walk share a folder and a name up to its last number, which counts steps of
    ``step_m``. ``split`` gallery or database is the database, anything else a query. Areas of
    one name look alike from floor to floor. Of the floors, in alphabetical order, every fifth
    is 'val' and all others 'train'; split 'all' takes every floor.

    :raises InputError: a column is missing or a file name does not end in a number.
    """
    path = _table_of(path)
    root = root or path.parent
    rows = [row for _, row in _rows(path, needed=('image', 'area'))]
    floors = sorted({row.get('floor', '') for row in rows})
    held_out = set(floors[2::5])
    if split in ('train', 'val'):
        rows = [row for row in rows if (row.get('floor', '') in held_out) == (split == 'val')]
    elif split != 'all':
        raise InputError(f'{str(path)!r} has no split {split!r}, allowed: train, val, all')
    if not rows:
        raise InputError(f'{str(path)!r} lists {len(floors)} floors, none of which is {split!r}')
    walks: dict[str, int] = {}
    xy_m = np.empty((len(rows), 2))
    for index, row in enumerate(rows):
        image = Path(row['image'])
        match = _FRAME.match(image.stem)
        if match is None:
            raise InputError(f'{str(path)!r}: {row["image"]!r} does not end in a frame number')
        number = walks.setdefault(f'{image.parent}/{match["walk"]}', len(walks))
        xy_m[index] = number * WALK_SPACING_M, int(match['frame']) * step_m
    areas = {area: n for n, area in enumerate(sorted({row['area'] for row in rows}))}
    images = PlaceImages(
        paths=tuple(root / row['image'] for row in rows),
        xy_m=xy_m,
        look_alike=np.array([areas[row['area']] for row in rows], dtype=np.int64),
    )
    is_query = np.array([row.get('split') not in ('gallery', 'database') for row in rows])
    return PlaceDataset(
        name=path.parent.name,
        database=images.take(np.flatnonzero(~is_query)),
        queries=images.take(np.flatnonzero(is_query)),
        split=split,
        true_radius_m=2.5 * step_m,
        positive_radius_m=2.5 * step_m,
        negative_radius_m=5.5 * step_m,
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a text file into an ``InputError`` that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f'{str(path)!r} is not UTF-8 ({error}): save it as UTF-8') from error
    except (OSError, csv.Error) as error:
        raise InputError(f'cannot read {str(path)!r}: {error}') from error


@contextmanager
def reading_arrays(path: Path, what: str = '') -> Iterator[None]:
    """Turn what goes wrong with a file of arrays into an ``InputError`` that names it.

    :param what: 'as ...', what the file should be.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # SciPy and NumPy raise many kinds for damaged files
        raise InputError(f'cannot read {str(path)!r}{what and " "}{what}: {error!r}') from error


def _table_of(path: Path) -> Path:
    return path / 'images.csv' if path.is_dir() else path


def _rows(
    path: Path, needed: tuple[str, ...] = ('path', 'east_m', 'north_m')
) -> list[tuple[int, dict[str, str]]]:
    """Return the table's rows with their line numbers."""
    with reading(path), path.open(newline='', encoding='utf-8-sig') as stream:
        reader = csv.DictReader(stream)
        if missing := set(needed) - set(reader.fieldnames or ()):
            raise InputError(f'{str(path)!r} lacks column {", ".join(sorted(missing))}')
        rows = [(reader.line_num, row) for row in reader]
    for line, row in rows:
        # A row that ends early has None in the columns it lacks.
        if empty := [name for name in needed if row[name] is None or not row[needed[0]]]:
            raise InputError(f'{str(path)!r} line {line}: no value for {empty[0]}')
    return rows


def _number(path: Path, line: int, row: dict[str, str], key: str) -> float:
    try:
        return float(row[key])
    except (TypeError, ValueError):
        raise InputError(
            f'{str(path)!r} line {line}: {key} is {row.get(key)!r}, expected a number'
        ) from None
