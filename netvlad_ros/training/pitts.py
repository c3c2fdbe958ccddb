# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ``dbStruct`` files of the NetVLAD authors, read by field name.

Their scalars are unsigned bytes, in which the square of 25 is 113; all are converted on reading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.training.places import IntArray, PlaceDataset, PlaceImages
from netvlad_ros.training.tables import reading_arrays
from netvlad_ros.types import FloatArray

_NEEDED = ('dbImageFns', 'utmDb', 'qImageFns', 'utmQ')
_TIME_STAMPS = ('dbTimeStamp', 'qTimeStamp')

# Tokyo 24/7 cuts each panorama into this many consecutive database images.
TOKYO247_CUTOUTS = 12


def read_pitts(path: Path, root: Optional[Path] = None) -> PlaceDataset:
    """Read one struct file.

    :param root: image folder. The database lies in it or in its subfolder ``images``, queries in
        one of ``queries``, ``queries_real`` and ``query`` or with the database: whichever holds
        an image that is listed.
    :raises InputError: the file is damaged, lacks a field or contradicts itself.
    """
    with reading_arrays(path):
        return _dataset(path, _fields(path), root or path.parent)


def _dataset(path: Path, fields: dict[str, Any], root: Path) -> PlaceDataset:
    if missing := [name for name in _NEEDED if name not in fields]:
        raise InputError(f'{str(path)!r}: dbStruct lacks {", ".join(missing)}')
    name = _text(fields.get('whichSet', path.stem))
    database_names, query_names = _names(fields['dbImageFns']), _names(fields['qImageFns'])
    for key, names in (('numImages', database_names), ('numQueries', query_names)):
        if key in fields and int(_scalar(fields[key])) != len(names):
            raise InputError(
                f'{str(path)!r}: {key} is {int(_scalar(fields[key]))} but {len(names)} are listed'
            )
    radius_m = float(_scalar(fields.get('posDistThr', 25.0)))
    positive_m = float(_scalar(fields.get('nonTrivPosDistSqThr', 100.0))) ** 0.5
    _check_square(path, fields, radius_m)
    database_root = _folder_of(database_names, root, ('', 'images'))
    query_root = _folder_of(
        query_names, root, ('queries', 'queries_real', 'query', '', 'images')
    )
    stamps = [
        None if key not in fields else np.ravel(fields[key]).astype(np.float64)
        for key in _TIME_STAMPS
    ]
    is_tokyo247 = 'tokyo247' in path.stem.lower().replace('_', '').replace('/', '')
    return PlaceDataset(
        name=path.stem,
        database=PlaceImages(
            paths=tuple(_image(database_root, image) for image in database_names),
            xy_m=_positions(path, fields['utmDb'], len(database_names)),
            stamp=stamps[0],
            panorama=_panoramas(len(database_names)) if is_tokyo247 else None,
        ),
        queries=PlaceImages(
            paths=tuple(_image(query_root, image) for image in query_names),
            xy_m=_positions(path, fields['utmQ'], len(query_names)),
            stamp=stamps[1],
        ),
        split=name if name in ('train', 'val', 'test') else '',
        true_radius_m=radius_m,
        positive_radius_m=positive_m,
        negative_radius_m=radius_m,
        # Tokyo Time Machine: cutouts of one panorama share a stamp and prove nothing.
        same_stamp_is_trivial=all(values is not None for values in stamps),
    )


def _fields(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    struct = loadmat(path).get('dbStruct')
    if struct is None or struct.dtype.names is None or struct.size != 1:
        raise InputError(f'{str(path)!r} holds no dbStruct')
    record = struct.ravel()[0]
    return {name: record[name] for name in struct.dtype.names}


def _scalar(value: Any) -> float:
    return float(np.ravel(np.asarray(value))[0])


def _text(value: Any) -> str:
    return str(np.ravel(np.asarray(value))[0])


def _names(cells: Any) -> list[str]:
    return [str(np.ravel(cell)[0]) for cell in np.ravel(cells)]


def _positions(path: Path, utm: Any, count: int) -> FloatArray:
    """Return (count, 2); the files hold (2, count)."""
    xy_m = np.asarray(utm, dtype=np.float64)
    if xy_m.shape == (2, count):
        return xy_m.T.copy()
    if xy_m.shape == (count, 2):
        return xy_m
    raise InputError(f'{str(path)!r}: positions are {xy_m.shape} for {count} images')


def _check_square(path: Path, fields: dict[str, Any], radius_m: float) -> None:
    if 'posDistSqThr' not in fields:
        return
    squared = _scalar(fields['posDistSqThr'])
    if abs(squared - radius_m**2) > 1e-6:
        raise InputError(
            f'{str(path)!r}: posDistThr is {radius_m:g} but posDistSqThr is {squared:g}'
        )


def _panoramas(count: int) -> IntArray:
    return np.arange(count, dtype=np.int64) // TOKYO247_CUTOUTS


def _folder_of(names: list[str], root: Path, folders: tuple[str, ...]) -> Path:
    """Return the first folder with a listed image, the root itself if none has one."""
    return next(
        (root / f for f in folders if any(_image(root / f, name).is_file() for name in names)),
        root,
    )


def _image(root: Path, name: str) -> Path:
    """Return the image's file; Tokyo 24/7 lists ``.jpg`` but was published as ``.png``."""
    path = root / name
    if path.suffix == '.jpg' and not path.is_file() and path.with_suffix('.png').is_file():
        return path.with_suffix('.png')
    return path
