# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets as folders and lists: UTM in file names, Mapillary SLS, npz beside two lists."""

from __future__ import annotations

from collections import Counter
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.image_files import IMAGE_SUFFIXES, is_image
from netvlad_ros.training.places import IntArray, PlaceDataset, PlaceImages
from netvlad_ros.training.tables import reading, reading_arrays
from netvlad_ros.types import FloatArray

MSLS_VAL_CITIES = ('cph', 'sf')


def read_utm_folder(path: Path, split: str) -> PlaceDataset:
    """Read ``[images/]SPLIT/database`` and ``SPLIT/queries`` of ``@east@north@...@.jpg`` files.

    A folder without splits, with ``database`` and ``queries`` directly in it, is any split.

    :raises InputError: a folder is missing or empty, or a name has no position.
    """
    candidates = (path / 'images' / split, path / split, path)
    base = next((folder for folder in candidates if (folder / 'database').is_dir()), None)
    if base is None:
        raise InputError(f'{str(path)!r} has no folder {split}/database')
    return PlaceDataset(
        name=path.name,
        database=_utm_images(base / 'database'),
        queries=_utm_images(base / 'queries'),
        split=split,
    )


@dataclass(frozen=True)
class UtmName:
    """What a file name says; None or '' where it says nothing."""

    east_m: float
    north_m: float
    panorama: str
    heading_deg: Optional[float]
    stamp: Optional[float]


def utm_of_name(name: str) -> UtmName:
    """Return what a file name says of its image.

    :param name: ``@east@north@zone@letter@lat@lon@panorama@tile@heading@...@stamp@note@.jpg``;
        only the file's own name is parsed, an ``@`` in a folder's name does no harm.
    :raises InputError: it is not of that form.
    """
    parts = name.split('@')
    try:
        east_m, north_m = float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        raise InputError(
            f'image name {name!r} has no position, expected @east_m@north_m@...'
        ) from None
    parts += [''] * (14 - len(parts))
    digits = parts[13].replace('_', '')
    try:
        heading_deg = float(parts[9]) if parts[9] else None
    except ValueError:
        heading_deg = None
    stamp = float(digits) if digits.isdigit() else None
    return UtmName(east_m, north_m, parts[7], heading_deg, stamp)


def _utm_images(folder: Path) -> PlaceImages:
    if not folder.is_dir():
        raise InputError(f'folder {str(folder)!r} does not exist')
    paths = sorted(p for p in folder.rglob('*') if is_image(p))
    if not paths:
        raise InputError(f'folder {str(folder)!r} has no {", ".join(IMAGE_SUFFIXES)} image')
    parsed = [utm_of_name(path.name) for path in paths]
    names = [name.panorama for name in parsed]
    panorama: Optional[IntArray] = None
    if all(names):
        panorama = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return PlaceImages(
        paths=tuple(paths),
        xy_m=np.array([[name.east_m, name.north_m] for name in parsed]),
        stamp=_all_or_none([name.stamp for name in parsed]),
        panorama=panorama,
        heading_deg=_all_or_none([name.heading_deg for name in parsed]),
    )


def _all_or_none(values: list[Optional[float]]) -> Optional[FloatArray]:
    known = [value for value in values if value is not None]
    return np.array(known) if len(known) == len(values) else None


def read_npz(path: Path, root: Optional[Path] = None) -> PlaceDataset:
    """Read ``utmDb`` (N, 2), ``utmQ`` (M, 2), ``posDistThr`` and the two lists of names beside it.

    The lists are ``imageDb``/``imageQ`` in the file itself, or the text files
    ``STEM_db.txt``/``STEM_q.txt`` beside it with one name a line.

    :raises InputError: a field is missing or the numbers of names and positions differ.
    """
    root = root or path.parent
    with reading_arrays(path):
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {key: stored[key] for key in stored.files}
        if missing := [key for key in ('utmDb', 'utmQ') if key not in arrays]:
            raise InputError(f'{str(path)!r} lacks {", ".join(missing)}')
        radius_m = float(np.ravel(arrays.get('posDistThr', 25.0))[0])
        database, queries = (_npz_images(path, root, arrays, which) for which in ('Db', 'Q'))
    return PlaceDataset(
        name=path.stem,
        database=database,
        queries=queries,
        true_radius_m=radius_m,
        negative_radius_m=radius_m,
    )


def _npz_images(path: Path, root: Path, arrays: dict[str, Any], which: str) -> PlaceImages:
    listed = arrays.get(f'image{which}')
    text = path.with_name(f'{path.stem}_{which.lower()}.txt')
    if listed is not None:
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in np.ravel(listed)]
    elif text.is_file():
        with reading(text):
            lines = text.read_text(encoding='utf-8').splitlines()
        names = [line for line in lines if line.strip()]
    else:
        raise InputError(f'{str(path)!r}: neither image{which} in it nor {text.name} beside it')
    xy_m = np.asarray(arrays[f'utm{which}'], dtype=np.float64)
    if xy_m.shape != (len(names), 2):
        raise InputError(
            f'{str(path)!r}: utm{which} is {xy_m.shape} but {len(names)} images are listed'
        )
    return PlaceImages(tuple(root / name for name in names), xy_m)


def read_msls(path: Path, split: str) -> PlaceDataset:
    """Read Mapillary SLS: ``[train_val/]CITY/{database,query}`` with their CSV files.

    Panoramas are left out, as in the official evaluation. Cities cph and sf are 'val', all
    others 'train'; the test cities have no published positions. ``path`` may be one city, which
    is then any split.

    :raises InputError: there is no such split, a file is missing or its columns are not those of
        the dataset.
    """
    base = path / 'train_val' if (path / 'train_val').is_dir() else path
    if (base / 'database').is_dir():
        cities = [base]
    elif split not in ('train', 'val'):
        raise InputError(
            f'{str(path)!r} has no split {split!r}, allowed: train, val '
            f'({", ".join(MSLS_VAL_CITIES)}); or give one city, '
            f'{str(base / MSLS_VAL_CITIES[0])!r}'
        )
    else:
        cities = sorted(c for c in base.iterdir() if (c / 'database').is_dir())
        cities = [c for c in cities if (c.name in MSLS_VAL_CITIES) == (split == 'val')]
    if not cities:
        raise InputError(f'{str(path)!r} has no city of split {split!r}')
    return PlaceDataset(
        name=path.name,
        database=_msls_images(cities, 'database'),
        queries=_msls_images(cities, 'query'),
        split=split,
    )


def _msls_images(cities: list[Path], side: str) -> PlaceImages:
    paths: list[Path] = []
    xy_m: list[list[float]] = []
    stamps: list[float] = []
    for city in cities:
        folder = city / side
        raw = _csv_by_key(folder / 'raw.csv')
        for key, row in _csv_by_key(folder / 'postprocessed.csv').items():
            if key not in raw:
                raise InputError(f'{str(folder)!r}: {key!r} is in postprocessed.csv only')
            if (raw[key].get('pano') or '').strip().lower() in ('true', '1'):
                continue
            paths.append(folder / 'images' / f'{key}.jpg')
            try:
                xy_m.append([float(row['easting']), float(row['northing'])])
                captured = raw[key].get('captured_at') or ''
                stamps.append(
                    float(np.datetime64(captured, 's').astype(np.int64)) if captured else np.nan
                )
            except (KeyError, ValueError) as error:
                raise InputError(f'{str(folder)!r}: row {key!r} is damaged: {error}') from error
    stamp: FloatArray = np.array(stamps)
    return PlaceImages(
        tuple(paths),
        np.array(xy_m, dtype=np.float64).reshape(-1, 2),
        stamp if np.isfinite(stamp).all() else None,
    )


def _csv_by_key(path: Path) -> dict[str, dict[str, str]]:
    with reading(path), path.open(newline='', encoding='utf-8-sig') as stream:
        rows = list(csv.DictReader(stream))
    if rows and 'key' not in rows[0]:
        raise InputError(f'{str(path)!r} has no column key')
    by_key = {row['key']: row for row in rows}
    if len(by_key) < len(rows):
        key = Counter(row['key'] for row in rows).most_common(1)[0][0]
        raise InputError(f'{str(path)!r} lists {key!r} twice: remove one row')
    return by_key
