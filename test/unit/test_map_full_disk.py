# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that is full while a new map is written: a clear error, and the room is given back."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import numpy as np
import pytest

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap, writer
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.tools import merge
from netvlad_ros.keyframes.writer import MapWriter
from netvlad_ros.types import Frame

MODEL, DIM = 'test@0123456789ab', 16
HERE = Path(__file__).parent
# Fills the disk of the new map when it is opened, while rows are copied, and at the very end.
CODE = """
import pathlib, sys
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.keyframes.prune import prune
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.tools import merge

home = pathlib.Path(sys.argv[1])
first, second, new, flag = (home / name for name in ('first', 'second', 'new', 'new.full'))
put, fold, calls = Store.put, Store.fold, [0]

def save():
    with KeyframeMap.open(first, 'test@0123456789ab', 16, read_only=True) as opened:
        opened.save_copy(new)

def counting_put(self, table, *values):
    calls[0] += 1
    if calls[0] == 100:
        flag.touch()
    put(self, table, *values)

def filling_fold(self):
    flag.touch()
    fold(self)

for tool in (save, lambda: merge([first, second], new), lambda: prune(first, new, 90)):
    for moment in ('open', 'rows', 'end'):
        calls[0] = 0
        Store.put = counting_put if moment == 'rows' else put
        Store.fold = filling_fold if moment == 'end' else fold
        if moment == 'open':
            flag.touch()
        try:
            tool()
            sys.exit(f'stored on a full disk: {moment}')
        except MapError as error:
            assert f'{new} was not written: the disk is full; make room' in str(error), error
        assert flag.exists()
        flag.unlink()
        assert sorted(path.name for path in home.iterdir()) == ['first', 'second'], moment
Store.put, Store.fold = put, fold
save()
"""


def make_map(folder: Path, count: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        for i, vector in enumerate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)):
            store.add(Frame(i, np.zeros((2, 2, 3), np.uint8)), vector, None, bytes(2000))


def test_a_full_disk_is_a_clear_error_and_nothing_is_left(tmp_path: Path) -> None:
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        pytest.skip('no C compiler')
    shim, home = tmp_path / 'shim.so', tmp_path / 'home'
    subprocess.run(
        [compiler, '-shared', '-fPIC', '-O1', '-o', shim, HERE / 'disk_shim.c', '-ldl'],
        check=True,
    )
    home.mkdir()
    make_map(home / 'first', 100)
    make_map(home / 'second', 50)
    environment = os.environ | {
        'LD_PRELOAD': str(shim), 'SHIM_FOLDER': str(home / 'new'),
        'PYTHONPATH': os.pathsep.join([str(HERE.parents[1]), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, '-c', CODE, home], env=environment, capture_output=True, text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), MapError('no reason')])
def test_a_map_that_cannot_be_finished_is_removed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: Store) -> None:
        raise error

    monkeypatch.setattr(Store, 'fold', fail)
    with (
        pytest.raises(MapError, match='new was not written'),
        MapWriter(tmp_path / 'new', MODEL, DIM, 'float32'),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_copy_takes_the_room_of_one_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, '_BATCH', 10)
    monkeypatch.setattr(writer, '_LOG_PAGES', 50)
    make_map(tmp_path / 'map', 200)
    log, fold, sizes = tmp_path / 'new.partial' / 'map.sqlite-wal', Store.fold, []

    def measure(store: Store) -> None:
        sizes.append(log.stat().st_size)  # the most that it ever had
        fold(store)

    monkeypatch.setattr(Store, 'fold', measure)
    assert merge([tmp_path / 'map'], tmp_path / 'new').keyframes_after == 200
    whole = (tmp_path / 'new' / 'map.sqlite').stat().st_size
    assert sizes[-1] < whole / 4
