# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image retrieval sets, judged by mean average precision: Oxford5k, Paris6k, INRIA Holidays.

========  ====================================================================================
kind      what it is
========  ====================================================================================
oxford    folder with ``NAME_query.txt`` (``[oxc1_]image x1 y1 x2 y2``) and ``NAME_good.txt``,
          ``NAME_ok.txt``, ``NAME_junk.txt`` beside or below it, as published for Oxford and Paris;
          or ``gnd_*.mat`` with ``imlist``, ``qidx`` and ``gnd(ok, junk, bbx)`` of the same content
holidays  folder of ``123400.jpg``, ``123401.jpg``, ...: all but the last two digits are the scene,
          00 is its query
========  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import re
from typing import Any, Optional

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.sources import is_recording
from netvlad_ros.image_files import is_image
from netvlad_ros.training.places import IntArray
from netvlad_ros.training.recall import mean_average_precision
from netvlad_ros.training.tables import reading, reading_arrays
from netvlad_ros.types import Float32Array, FloatArray

KINDS = ('oxford', 'holidays')

# The query files of Oxford put this before the name of the image.
_OXFORD_PREFIX = 'oxc1_'
_HOLIDAYS_NAME = re.compile(r'^\d{6}$')


@dataclass(frozen=True)
class RetrievalSet:
    """Images to rank for each query, which are right, and which are neither right nor wrong.

    :param images: N files.
    :param queries: (Q,) index of each query's image.
    :param right: for each query the sorted indices of its right images; the query's own is
        among them where the publishers list it.
    :param junk: for each query the sorted indices that are taken out of its ranking.
    :param boxes_xyxy: (Q, 4) the queried part of each query's image, in pixels; None for all.
    """

    name: str
    images: tuple[Path, ...]
    queries: IntArray
    right: tuple[IntArray, ...]
    junk: tuple[IntArray, ...]
    boxes_xyxy: Optional[FloatArray] = None

    def without(self, bad: Sequence[int]) -> RetrievalSet:
        """Return the set without some images, right or not, and without their queries."""
        keep = np.setdiff1d(np.arange(len(self.images)), bad)
        new = np.full(len(self.images), -1, dtype=np.int64)
        new[keep] = np.arange(len(keep))
        asks = np.flatnonzero(new[self.queries] >= 0)

        def renumbered(rows: tuple[IntArray, ...]) -> tuple[IntArray, ...]:
            return tuple(new[rows[q]][new[rows[q]] >= 0] for q in asks)

        return replace(
            self, images=tuple(self.images[i] for i in keep), queries=new[self.queries[asks]],
            right=renumbered(self.right), junk=renumbered(self.junk),
            boxes_xyxy=None if self.boxes_xyxy is None else self.boxes_xyxy[asks],
        )  # fmt: skip

    @property
    def lists_queries(self) -> bool:
        """Return whether a query's own image is published as right for it (Oxford, Paris)."""
        return any(q in row for q, row in zip(self.queries, self.right, strict=True))


@dataclass(frozen=True)
class MeanAveragePrecision:
    """Shares of 1.

    :param published: as the publishers count: a query's own image is right for it where they
        list it, else it is taken out of the ranking.
    :param without_query: the query's own image taken out of ranking and right answers.
    """

    published: float
    without_query: float


def judge(
    data: RetrievalSet, queries: Float32Array, database: Float32Array
) -> MeanAveragePrecision:
    """Rank all images for each query by inner product and return the mean average precision.

    :param queries: (Q, D) unit descriptors.
    :param database: (N, D) of all images.
    """
    ranked = np.argsort(-(queries @ database.T), axis=1, kind='stable').astype(np.int64)
    others = [row[row != q] for q, row in zip(data.queries, data.right, strict=True)]
    junk_and_query = [np.append(row, q) for q, row in zip(data.queries, data.junk, strict=True)]
    without_query = mean_average_precision(ranked, others, junk_and_query)
    if not data.lists_queries:
        return MeanAveragePrecision(without_query, without_query)
    return MeanAveragePrecision(
        mean_average_precision(ranked, data.right, data.junk), without_query
    )


def retrieval_kind(path: Path) -> str:
    """Return 'oxford' or 'holidays', or '' for what is no retrieval set."""
    if path.is_file():
        return 'oxford' if path.suffix == '.mat' and path.stem.startswith('gnd_') else ''
    # What has a table or a recording's poses has positions, whatever its images are called.
    if not path.is_dir() or (path / 'images.csv').is_file() or is_recording(path):
        return ''
    if any(path.glob('*_query.txt')) or any(path.glob('*/*_query.txt')):
        return 'oxford'
    for folder in (path, path / 'jpg'):
        if any(_HOLIDAYS_NAME.match(p.stem) for p in folder.glob('*.jpg')):
            return 'holidays'
    return ''


def open_retrieval(path: Path, images: Optional[Path] = None, kind: str = '') -> RetrievalSet:
    """Read a retrieval set.

    :param images: folder of the images, searched with its subfolders; by default ``path``.
    :raises InputError: it is none, or contradicts itself.
    """
    kind = kind or retrieval_kind(path)
    if path.suffix == '.pkl':
        raise InputError(
            f'{str(path)!r} is a pickle, which can run code: give the *_query.txt files or '
            'gnd_*.mat'
        )
    if kind == 'holidays':
        return _read_holidays(path, images)
    if kind == 'oxford':
        read = _read_gnd if path.suffix == '.mat' else _read_oxford
        return read(path, images or (path if path.is_dir() else path.parent))
    raise InputError(f'{str(path)!r} is no retrieval set of kind {", ".join(KINDS)}')


def _files(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by name without ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if is_image(path):
            if path.stem in found:
                raise InputError(f'{str(path)!r} and {str(found[path.stem])!r} have one name')
            found[path.stem] = path
    if not found:
        raise InputError(f'{str(folder)!r} holds no image')
    return found


def _read_holidays(path: Path, images: Optional[Path]) -> RetrievalSet:
    files = {k: v for k, v in _files(images or path).items() if _HOLIDAYS_NAME.match(k)}
    names = sorted(files)
    scene = np.array([int(name) // 100 for name in names])
    queries = np.flatnonzero([name.endswith('00') for name in names])
    right = tuple(np.flatnonzero(scene == scene[q]) for q in queries)
    right = tuple(row[row != q] for q, row in zip(queries, right, strict=True))
    if lonely := [names[q] for q, row in zip(queries, right, strict=True) if not len(row)]:
        raise InputError(f'{str(path)!r}: query {lonely[0]!r} has no other image of its scene')
    none = tuple(np.zeros(0, dtype=np.int64) for _ in queries)
    return RetrievalSet(path.name, tuple(files[n] for n in names), queries, right, none)


def _read_oxford(path: Path, images: Path) -> RetrievalSet:
    files = _files(images)
    names = sorted(files)
    row_of = {name: row for row, name in enumerate(names)}
    queries: list[int] = []
    boxes, right, junk = [], [], []
    for query in sorted([*path.glob('*_query.txt'), *path.glob('*/*_query.txt')]):
        with reading(query):
            fields = query.read_text(encoding='utf-8').split()
        if len(fields) != 5:
            raise InputError(f'{str(query)!r} holds {fields}, expected: image x1 y1 x2 y2')
        stem = query.name.removesuffix('_query.txt')
        lists = {
            part: _rows_of(query.with_name(f'{stem}_{part}.txt'), row_of)
            for part in ('good', 'ok', 'junk')
        }
        queries.extend(_rows([fields[0].removeprefix(_OXFORD_PREFIX)], query, row_of))
        try:
            boxes.append([float(value) for value in fields[1:]])
        except ValueError as error:
            raise InputError(f'{str(query)!r}: {error}') from error
        right.append(np.union1d(lists['good'], lists['ok']))
        junk.append(np.unique(lists['junk']))
    if not queries:
        raise InputError(f'{str(path)!r} holds no *_query.txt')
    return RetrievalSet(
        path.name, tuple(files[name] for name in names), np.array(queries, dtype=np.int64),
        tuple(right), tuple(junk), np.array(boxes),
    )  # fmt: skip


def _rows_of(path: Path, row_of: dict[str, int]) -> IntArray:
    """Return the rows of the images that a list names."""
    with reading(path):
        return _rows(path.read_text(encoding='utf-8').split(), path, row_of)


def _rows(names: Sequence[str], source: Path, row_of: dict[str, int]) -> IntArray:
    if missing := [name for name in names if name not in row_of]:
        raise InputError(
            f'{source.name}: {len(missing)} images are missing, the first is {missing[0]!r}: '
            'give their folder with --images'
        )
    return np.array([row_of[name] for name in names], dtype=np.int64)


def _read_gnd(path: Path, images: Path) -> RetrievalSet:
    from scipy.io import loadmat

    with reading_arrays(path, 'as gnd file with imlist, qidx and gnd(ok, junk, bbx)'):
        content = loadmat(path, simplify_cells=True)
        names = [str(name) for name in np.atleast_1d(content['imlist'])]
        queries = np.atleast_1d(content['qidx']).astype(np.int64) - 1
        entries = list(np.atleast_1d(content['gnd']))
        right = tuple(_matlab_rows(entry['ok']) for entry in entries)
        junk = tuple(_matlab_rows(entry['junk']) for entry in entries)
        boxes = np.array([entry['bbx'] for entry in entries], dtype=np.float64).reshape(-1, 4)
        rows = np.concatenate([queries, *right, *junk])
        if len(queries) != len(entries) or rows.min() < 0 or rows.max() >= len(names):
            raise InputError(
                f'{str(path)!r}: {len(queries)} queries for {len(entries)} entries, indices '
                f'{rows.min() + 1} to {rows.max() + 1} of {len(names)} images'
            )
    files = _files(images)
    _rows(names, path, dict.fromkeys(files, 0))
    return RetrievalSet(
        path.stem.removeprefix('gnd_'), tuple(files[n] for n in names), queries, right, junk, boxes
    )


def _matlab_rows(values: Any) -> IntArray:
    """Return sorted rows counted from 0 of MATLAB's, which count from 1."""
    return np.unique(np.atleast_1d(values).astype(np.int64)) - 1
