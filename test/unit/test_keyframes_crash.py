# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a map keeps through kill -9, power cuts, full and read-only disks."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import random
import shutil
import struct
import subprocess
import sys

import pytest

from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.keyframes.verify import verify

HERE = Path(__file__).parent
sys.path.append(str(HERE))
import mapping_runs  # noqa: E402

SECTOR = 512


@pytest.fixture(scope='module')
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that watches a process write."""
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        pytest.skip('no C compiler')
    library = tmp_path_factory.mktemp('shim') / 'shim.so'
    subprocess.run(
        [compiler, '-shared', '-fPIC', '-O1', '-o', library, HERE / 'disk_shim.c', '-ldl'],
        check=True,
    )
    return library


def run(arguments: list[object], **variables: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    environment['PYTHONPATH'] = os.pathsep.join([str(HERE.parents[1]), *sys.path])
    return subprocess.run(
        [sys.executable, HERE / 'mapping_runs.py', *map(str, arguments)], env=environment,
        capture_output=True, text=True, check=False,
    )


@pytest.mark.parametrize(
    'kills', [15, pytest.param(200, marks=pytest.mark.slow)], ids=['15', '200']
)
def test_kill_9_loses_no_acknowledged_keyframe(kills: int, tmp_path: Path) -> None:
    result = run(['kill', tmp_path / 'map', kills, 7])
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > kills  # the runs did store something


def records(log: Path) -> Iterator[tuple[str, str, int, bytes]]:
    data, at = log.read_bytes(), 0
    while at < len(data):
        kind, (length,) = chr(data[at]), struct.unpack_from('<I', data, at + 1)
        name = data[at + 5 : at + 5 + length].decode()
        offset, size = struct.unpack_from('<QQ', data, at + 5 + length)
        at += 21 + length
        yield kind, name, offset, data[at : at + size]
        at += size


class Disk:
    """A disk that has surely kept what was synced, and of the rest anything."""

    def __init__(self) -> None:
        self._safe: dict[str, bytearray] = {}  # content as of the last sync of each file
        self._waiting: dict[str, list[tuple[int, bytes | None]]] = {}
        self._safe_names: set[str] = set()
        self._unsafe_names: dict[str, bool] = {}  # created (True) or deleted since folder sync

    def do(self, kind: str, name: str, offset: int, data: bytes) -> None:
        """Take in one operation of the log."""
        if kind == 'C':
            self._safe[name], self._waiting[name] = bytearray(), []
            self._unsafe_names[name] = True
        elif kind == 'U':
            self._unsafe_names[name] = False
        elif kind == 'W':
            self._waiting[name].append((offset, data))
        elif kind == 'T':
            self._waiting[name].append((offset, None))
        elif kind == 'S':
            for operation in self._waiting[name]:
                apply(self._safe[name], *operation)
            self._waiting[name] = []
        elif kind == 'D':
            for file, is_there in list(self._unsafe_names.items()):
                if os.path.dirname(file) == name:  # noqa: PTH120
                    (self._safe_names.add if is_there else self._safe_names.discard)(file)
                    del self._unsafe_names[file]

    def cut(self, folder: str, target: Path, rng: random.Random) -> None:
        """Write the files of a folder as the power cut may leave them."""
        target.mkdir()
        for name, safe in self._safe.items():
            if os.path.dirname(name) != folder or name.endswith('-shm'):  # noqa: PTH120
                continue
            is_there = name in self._safe_names
            if name in self._unsafe_names:
                is_there = is_there if rng.random() < 0.5 else self._unsafe_names[name]
            if not is_there:
                continue
            content = bytearray(safe)
            share = rng.choice((0.0, 0.5, 1.0))
            for offset, data in self._waiting[name]:
                if data is None:
                    if rng.random() < share:
                        apply(content, offset, None)
                    continue
                for start in range(0, len(data), SECTOR):
                    if rng.random() < share:
                        apply(content, offset + start, data[start : start + SECTOR])
            (target / name.rsplit('/', 1)[1]).write_bytes(content)


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    end = offset if data is None else offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


@pytest.mark.parametrize('durability', ['full', 'normal'])
def test_power_cut(durability: str, shim: Path, tmp_path: Path) -> None:
    """Full keeps each acknowledged keyframe; normal a map that opens and names its losses."""
    folder, log = tmp_path / 'map', tmp_path / 'log'
    folder.mkdir()
    result = run(
        ['run', folder, 150, durability], LD_PRELOAD=shim, SHIM_LOG=log, SHIM_FOLDER=folder
    )
    assert result.returncode == 0, result.stderr
    operations = list(records(log))
    is_ack = [name.endswith('.acks') and kind == 'W' for kind, name, _, _ in operations]
    assert sum(is_ack) == 150
    # Nobody relies on a map before its first keyframe is acknowledged.
    rng = random.Random(3)
    cuts = sorted(rng.sample(range(is_ack.index(True), len(operations)), 40))
    disk, acknowledged, done = Disk(), 0, 0
    for cut in cuts:
        for number in range(done, cut):
            if is_ack[number]:
                acknowledged += 1
            elif not operations[number][1].endswith('.acks'):
                disk.do(*operations[number])
        done = cut
        left = tmp_path / f'cut_{cut}'
        disk.cut(str(folder), left, rng)
        if durability == 'full':
            mapping_runs.check(left, acknowledged)
        else:
            with KeyframeMap.open(left, mapping_runs.MODEL, mapping_runs.DIM) as store:
                sound = [k.id for k in store.keyframes() if k.id not in store.damaged]
                for i in sound:
                    assert store.search(mapping_runs.vector_of(i), 1)[0].keyframe_id == i
            named = {fault.key for fault in verify(left).faults if fault.table == 'descriptors'}
            assert named == {str(i) for i in store.damaged}
        shutil.rmtree(left)


def test_flush_beside_a_reader_survives_a_power_cut(shim: Path, tmp_path: Path) -> None:
    code = (
        'import sys; sys.path.insert(0, sys.argv[2])\n'
        'import mapping_runs as m, os, sqlite3\n'
        'store = m.KeyframeMap.open(sys.argv[1], m.MODEL, m.DIM)\n'
        'def add():\n'
        '    store.add(m.Frame(len(store), None), m.vector_of(len(store)), None,\n'
        '        m.jpeg_of(len(store)))\n'
        '    store.flush()\n'
        'add()\n'
        'reader = sqlite3.connect(sys.argv[1] + "/map.sqlite", isolation_level=None)\n'
        'reader.execute("BEGIN")\n'
        'reader.execute("SELECT * FROM keyframes").fetchall()\n'
        'add()\n'
        'os.write(os.open(sys.argv[1] + ".acks", os.O_WRONLY | os.O_CREAT), b"2")\n'
        'os._exit(0)\n'
    )
    folder, log = tmp_path / 'map', tmp_path / 'log'
    folder.mkdir()
    environment = os.environ | {
        'LD_PRELOAD': str(shim), 'SHIM_FOLDER': str(folder), 'SHIM_LOG': str(log),
        'PYTHONPATH': os.pathsep.join([str(HERE.parents[1]), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, '-c', code, folder, HERE], env=environment, capture_output=True,
        text=True, check=False,
    )
    assert result.returncode == 0, result.stderr
    for seed in range(8):
        disk, left = Disk(), tmp_path / f'cut_{seed}'
        for operation in records(log):
            if operation[1].endswith('.acks'):
                break
            disk.do(*operation)
        disk.cut(str(folder), left, random.Random(seed))
        mapping_runs.check(left, 2)


@pytest.mark.parametrize('full_after', [30_000, 90_000, 250_000])
def test_full_disk_is_a_clear_error_and_keeps_what_is_stored(
    full_after: int, shim: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'map'
    with KeyframeMap.open(folder, mapping_runs.MODEL, mapping_runs.DIM):
        pass
    result = run(
        ['run', folder, 2000, 'normal'], LD_PRELOAD=shim, SHIM_FOLDER=f'{folder}/',
        SHIM_FULL_AFTER=full_after,
    )
    assert result.returncode == 3, result.stdout + result.stderr
    assert 'disk is full' in result.stdout and 'intact' in result.stdout
    acks = (tmp_path / 'map.acks').read_bytes().split()
    assert mapping_runs.check(folder, len(acks)) == len(acks) > 2


def test_adding_goes_on_when_the_disk_has_room_again(
    shim: Path, tmp_path: Path
) -> None:
    code = (
        'import sys; sys.path.insert(0, sys.argv[2])\n'
        'import mapping_runs as m, pathlib\n'
        'from netvlad_ros.errors import MapError\n'
        'flag, acks = pathlib.Path(sys.argv[1] + ".full"), m.os.open("/dev/null", m.os.O_WRONLY)\n'
        'with m.KeyframeMap.open(sys.argv[1], m.MODEL, m.DIM) as store:\n'
        '    add = lambda: store.add(m.Frame(len(store), m.np.zeros((1, 1, 3), "u1")),\n'
        '        m.vector_of(len(store)), None, m.jpeg_of(len(store)))\n'
        '    for _ in range(40): add()\n'
        '    flag.touch()\n'
        '    for _ in range(3):\n'
        '        try: add(); sys.exit("stored on a full disk")\n'
        '        except MapError as error: assert "full" in str(error), error\n'
        '    assert store.search(m.vector_of(7), 1)[0].keyframe_id == 7\n'
        '    flag.unlink()\n'
        '    for _ in range(40): add()\n'
    )
    folder = tmp_path / 'map'
    environment = os.environ | {
        'LD_PRELOAD': str(shim), 'SHIM_FOLDER': str(folder),
        'PYTHONPATH': os.pathsep.join([str(HERE.parents[1]), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, '-c', code, folder, HERE], env=environment, capture_output=True,
        text=True, check=False,
    )
    assert result.returncode == 0, result.stderr
    assert mapping_runs.check(folder, 80) == 80


def test_read_only_disk(shim: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    with KeyframeMap.open(folder, mapping_runs.MODEL, mapping_runs.DIM) as store:
        store.add(mapping_runs.Frame(0, None), mapping_runs.vector_of(0))
    variables = {'LD_PRELOAD': shim, 'SHIM_FOLDER': folder, 'SHIM_READ_ONLY': 1}
    result = run(['run', folder, 1, 'normal'], **variables)
    assert result.returncode == 3 and 'open the map read-only' in result.stdout, result.stderr
    result = run(['search', folder, 0, 'normal'], **variables)
    assert (result.returncode, result.stdout) == (0, '0\n'), result.stderr
