# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What readers see while a writer adds, and what is on the disk when the writer says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import threading

import numpy as np
import pytest

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.keyframes.block_file import BlockFile
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.export import export
from netvlad_ros.keyframes.reader import MapReader
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.verify import verify
from netvlad_ros.types import Frame

MODEL, DIM, S = 'test@0123456789ab', 32, 1_000_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)


def vector(number: int) -> np.ndarray:
    found = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    return found / np.linalg.norm(found)


def add(store: KeyframeMap) -> None:
    store.add(Frame(len(store) * S, IMAGE), vector(len(store)))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[KeyframeMap]:
    with KeyframeMap.open(tmp_path / 'map', MODEL, DIM) as store:
        for _ in range(50):
            add(store)
        yield store


@contextmanager
def adding(store: KeyframeMap) -> Iterator[None]:
    """Let a thread add keyframes while the block runs."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(1e-3):
            add(store)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def check(reader: KeyframeMap) -> None:
    """Check that every keyframe of a map can be found and has its own descriptor."""
    count = len(reader)
    assert reader.damaged == [] and reader.stats()['damaged'] == 0
    np.testing.assert_array_equal(
        reader.descriptors(range(count)), [vector(i) for i in range(count)]
    )
    for i in (0, count - 1):
        assert reader.search(vector(i), 1)[0].keyframe_id == i


def test_a_keyframe_added_while_a_reader_opens_comes_with_its_refresh(
    writer: KeyframeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Store.core

    def slow_core(store: Store) -> Iterator[np.ndarray]:
        yield from core(store)
        add(writer)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Store, 'core', slow_core)
        reader = KeyframeMap.open(writer.path, MODEL, DIM, read_only=True)
    with reader:
        assert len(reader) == 50
        check(reader)
        assert reader.refresh() == 1
        check(reader)


def test_readers_that_open_beside_a_writer_see_everything(writer: KeyframeMap) -> None:
    with adding(writer):
        for _ in range(40):
            with KeyframeMap.open(writer.path, MODEL, DIM, read_only=True) as reader:
                check(reader)
                reader.refresh()
                check(reader)


def test_an_export_beside_a_writer_is_of_one_moment(writer: KeyframeMap, tmp_path: Path) -> None:
    with adding(writer):
        for _ in range(20):
            count = export(writer.path, 'npz', tmp_path / 'map.npz')
            with np.load(tmp_path / 'map.npz') as found:
                assert len(found['descriptors']) == len(found['ids']) == count
            assert verify(writer.path).faults == ()
    with MapReader(writer.path) as reader:
        before = reader.count('keyframes')
        add(writer)
        assert reader.count('keyframes') == before == len(list(reader.rows('keyframes')))


def test_a_reader_that_copies_a_live_map_copies_all_of_it(
    writer: KeyframeMap, tmp_path: Path
) -> None:
    with KeyframeMap.open(writer.path, MODEL, DIM, read_only=True) as reader, adding(writer):
        for number in range(5):
            copied = reader.save_copy(tmp_path / f'{number}')
            assert copied == len(reader)
            with KeyframeMap.open(tmp_path / f'{number}', MODEL, DIM, read_only=True) as copy:
                assert len(copy) == copied
                check(copy)


@pytest.fixture
def blocks(tmp_path: Path) -> Iterator[DescriptorBlocks]:
    found = DescriptorBlocks(tmp_path, DIM, 'float32', 0, rows=8)
    found.prepare(0)
    yield found
    found.close(0)


def test_a_sync_waits_for_one_in_progress(
    blocks: DescriptorBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_inside, may_end = threading.Event(), threading.Event()

    def slow_sync(_: int) -> None:
        is_inside.set()
        may_end.wait()

    monkeypatch.setattr(os, 'fdatasync', slow_sync)
    blocks.write(0, 0, vector(0))
    first, second = (threading.Thread(target=blocks.sync) for _ in range(2))
    first.start()
    is_inside.wait()
    second.start()
    second.join(0.2)
    is_waiting = second.is_alive()
    may_end.set()
    first.join()
    second.join()
    assert is_waiting


def test_a_write_during_a_sync_is_synced_by_the_next(
    blocks: DescriptorBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, log = BlockFile.write, []

    def write_after_a_sync(*arguments: object) -> int:
        blocks.sync()
        log.append('write')
        return write(*arguments)

    monkeypatch.setattr(BlockFile, 'write', write_after_a_sync)
    monkeypatch.setattr(os, 'fdatasync', lambda _: log.append('sync'))
    blocks.write(0, 0, vector(0))
    blocks.sync()
    assert log[-2:] == ['write', 'sync']


def test_a_sync_that_failed_is_an_error_and_tried_again(
    blocks: DescriptorBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def failing_sync(_: int) -> None:
        raise OSError(5, 'Input/output error')

    blocks.write(0, 0, vector(0))
    monkeypatch.setattr(os, 'fdatasync', failing_sync)
    for _ in range(2):
        with pytest.raises(MapError, match='Input/output error'):
            blocks.sync()
    monkeypatch.setattr(os, 'fdatasync', synced.append)
    blocks.sync()
    assert len(synced) == 1


def test_full_blocks_are_closed_for_writing(blocks: DescriptorBlocks) -> None:
    def files_open_for_writing() -> int:
        flags = [path.read_text().split()[3] for path in Path('/proc/self/fdinfo').iterdir()
                 if (Path('/proc/self/fd') / path.name).resolve().parent == blocks.folder]
        return sum(int(flag, 8) & os.O_ACCMODE != os.O_RDONLY for flag in flags)

    most = 0
    for row in range(200):
        blocks.write(row, row, vector(row))
        blocks.sync()
        most = max(most, files_open_for_writing())
    assert most <= 6  # those made ahead, the one in use, and the one before it until it is synced
    np.testing.assert_array_equal(blocks.read(np.arange(200)), [vector(i) for i in range(200)])
