# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the map promises to the detector, in memory and on disk, float32 and float16."""

from __future__ import annotations

from dataclasses import replace
import math
from pathlib import Path
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from netvlad_ros.errors import ConfigError, InputError, MapError
from netvlad_ros.keyframes import Exclusion, KeyframeMap, MapConfig, schema
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.types import (
    Camera,
    ClosureStatus,
    Frame,
    LoopClosure,
    RejectReason,
    TransformKind,
)

MODEL, DIM, S = 'test@0123456789ab', 32, 1_000_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)


def unit_vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def frame(t_s: float, camera: str = 'camera') -> Frame:
    T = np.eye(4)
    T[:3, 3] = t_s, 1 / 3, -t_s
    return Frame(int(t_s * S), IMAGE, Camera(name=camera), T)


def fill(store: KeyframeMap, vectors: np.ndarray, start_s: float = 0.0) -> None:
    for i, vector in enumerate(vectors):
        store.add(frame(start_s + i), vector)


@pytest.fixture(params=['memory float32', 'disk float32', 'disk float16', 'milvus float32'])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path | str | None, MapConfig]:
    place, dtype = request.param.split()
    if place == 'milvus':
        pytest.importorskip('milvus_lite')
    paths = {'memory': None, 'disk': tmp_path / 'map', 'milvus': f'milvus+file:{tmp_path}/m.db'}
    return paths[place], MapConfig(dtype=dtype, threads=2)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 64 rows fill a block, so that searches cross blocks."""
    monkeypatch.setattr('netvlad_ros.keyframes.blocks.BLOCK_BYTES', 64 * DIM * 4)


def brute_force(vectors: np.ndarray, query: np.ndarray, allowed: np.ndarray, k: int) -> list[int]:
    ids = np.flatnonzero(allowed)
    return ids[np.argsort(-(vectors[ids] @ query), kind='stable')[:k]].tolist()


def test_exclusion_acts_inside_the_search(kind, small_blocks) -> None:
    path, config = kind
    vectors = unit_vectors(250).astype(np.float16).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    number = np.arange(250)
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        first = store.begin_session('first').uuid
        ids = [
            store.add(frame(i, 'left' if i % 2 else 'right'), vectors[i])[0].id for i in range(150)
        ]
        second = store.begin_session('second').uuid
        ids += [store.add(frame(i, 'left'), vectors[150 + i])[0].id for i in range(100)]
        left = (number >= 150) | (number % 2 == 1)
        most = frozenset(ids[1:249])
        cases = [
            (None, number >= 0),
            (Exclusion(session=first, newer_than_ns=50 * S), (number >= 150) | (number <= 50)),
            (Exclusion(session=second, newer_than_ns=-1), number < 150),
            (Exclusion(whole_session=first), number >= 150),
            (Exclusion(camera='left'), ~left),
            (Exclusion(camera='none'), number >= 0),
            (Exclusion(ids=frozenset({ids[3], ids[7], 10_000})), (number != 3) & (number != 7)),
            (Exclusion(ids=most), (number == 0) | (number == 249)),
            (Exclusion(whole_session=second, camera='left', ids=frozenset({ids[0]})),
             (number < 150) & ~left & (number != 0)),
            (Exclusion(whole_session=first, session=second, newer_than_ns=-1), number < 0),
        ]
        for exclude, allowed in cases:
            for query in vectors[::83]:
                found = store.search(query, 7, exclude)
                expected = brute_force(vectors, query, allowed, 7)
                np.testing.assert_allclose(
                    [n.similarity for n in found], vectors[expected] @ query, atol=2e-3
                )
                assert all(allowed[ids.index(n.keyframe_id)] for n in found)
                assert [n.similarity for n in found] == sorted(
                    (n.similarity for n in found), reverse=True
                )


def test_search_of_an_empty_map_ties_and_k(kind) -> None:
    path, config = kind
    vector = unit_vectors(1)[0]
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        assert store.search(vector, 5) == []
        fill(store, np.stack([vector] * 4))
        ids = [keyframe.id for keyframe in store.keyframes()]
        assert [n.keyframe_id for n in store.search(vector, 4)] == ids
        assert len(store.search(vector, 100)) == 4


def test_float32_search_tells_apart_what_float16_cannot(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = unit_vectors(1) + 3e-5 * rng.standard_normal((400, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[123] + 0.5 * unit_vectors(2)[1]
    query /= np.linalg.norm(query)
    best = np.argsort(-(vectors.astype(float) @ query.astype(float)))[:3]
    coarse = np.argsort(-(vectors.astype(np.float16).astype(float) @ query.astype(float)))[:3]
    assert coarse.tolist() != best.tolist()
    for path in (None, tmp_path):
        with KeyframeMap.open(path, MODEL, DIM) as store:
            fill(store, vectors)
            ids = [keyframe.id for keyframe in store.keyframes()]
            assert [n.keyframe_id for n in store.search(query, 3)] == [ids[i] for i in best]


def test_a_search_reads_few_of_thousands_of_look_alikes(
    tmp_path: Path, small_blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    vectors = unit_vectors(1) + 1e-5 * rng.standard_normal((3000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    read, rows_read = DescriptorBlocks.read, []
    with KeyframeMap.open(tmp_path, MODEL, DIM) as store:
        fill(store, vectors)
        monkeypatch.setattr(
            DescriptorBlocks, 'read',
            lambda blocks, rows: rows_read.append(len(rows)) or read(blocks, rows),
        )
        found = store.search(vectors[0], 3)
    assert sum(rows_read) <= 16 * (3 + 16)
    assert found[0].similarity > 0.9999


def test_reopened_map_has_everything(kind) -> None:
    path, config = kind
    if path is None:
        pytest.skip('a map in memory has nothing to reopen')
    vectors = unit_vectors(70)
    K = np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]])
    camera = Camera(
        'front', 'front_optical', (640, 480), K, 'plumb_bob', np.arange(5) / 7, np.eye(4)
    )
    closure_fields = {
        'similarity': 0.8125, 'model_id': MODEL, 'margin': 0.1, 'consistency': 3, 'rank': 1,
        'status': ClosureStatus.VERIFIED, 'transform_kind': TransformKind.METRIC,
        'T_match_query': frame(3).T_odom_base, 'covariance': np.diag(np.arange(6) / 3.0),
        'num_matches': 50, 'num_inliers': 40, 'latency_ns': 5,
    }
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        session = store.begin_session('drive', camera)
        kept = [
            store.add(replace(frame(i), camera=camera), v, thumbnail_jpeg=b'jpeg%d' % i)[0]
            for i, v in enumerate(vectors[:69])
        ]
        kept.append(store.add(Frame(69 * S, IMAGE, camera), vectors[69])[0])  # no odometry
        closure = LoopClosure(kept[50], kept[2], **closure_fields)
        store.add_closures([closure])
    with KeyframeMap.open(path, MODEL, DIM, config, read_only=True) as store:
        assert store.sessions == [session] and store.session is None
        assert len(store) == 70
        first = kept[0].id
        for old, new in zip(kept, store.keyframes(session.uuid), strict=True):
            assert replace(new, T_odom_base=None, place_id=0) == replace(
                old, T_odom_base=None, place_id=0
            )
            np.testing.assert_array_equal(new.T_odom_base, old.T_odom_base)
        np.testing.assert_allclose(store.descriptors([k.id for k in kept]), vectors, atol=1e-3)
        assert store.thumbnail(first + 5) == b'jpeg5' and store.thumbnail(first + 69) is None
        stored = store.camera(first + 5)
        assert (stored.name, stored.frame_id) == ('front', 'front_optical')
        assert stored.size_wh == (640, 480)
        np.testing.assert_array_equal(stored.K, K)
        np.testing.assert_array_equal(stored.distortion, camera.distortion)
        (read,) = store.closures()
        assert (read.query.id, read.match.id) == (first + 50, first + 2)
        assert read.query.place_id == read.match.place_id == first + 2
        for name, value in closure_fields.items():
            np.testing.assert_array_equal(getattr(read, name), value)
        assert math.isnan(read.probability) and read.reject_reason is RejectReason.NONE
        assert store.closures(since_ns=50 * S) and not store.closures(since_ns=50 * S + 1)
        with pytest.raises(MapError, match='read-only'):
            store.add(frame(100), vectors[0])
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        store.begin_session('next')
        keyframe, visit = store.add(frame(0), vectors[0])
        assert keyframe.id == first + 70 and visit.is_new and visit.place_id == first + 70


def test_only_a_map_in_memory_says_so(kind) -> None:
    path, config = kind
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        assert store.is_in_memory == (path is None)


def test_paths_of_a_launch_line_may_begin_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with KeyframeMap.open('~/maps/office', MODEL, DIM) as store:
        assert store.path == tmp_path / 'maps' / 'office'
        store.save_copy('~/copy')
    for name in ('maps/office', 'copy'):
        assert (tmp_path / name / 'map.sqlite').is_file()
    assert not (tmp_path / '~').exists()
    with pytest.raises(MapError, match='no such user'):
        KeyframeMap.open('~no_such_user/map', MODEL, DIM)


def test_a_bad_descriptor_changes_nothing(kind) -> None:
    path, config = kind
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        good = unit_vectors(1)[0]
        for bad in (good * 2, good * np.nan, good[:5], np.zeros(DIM, np.float32)):
            with pytest.raises(InputError):
                store.add(frame(0), bad)
            with pytest.raises(InputError):
                store.search(bad, 1)
        assert len(store) == 0
        with pytest.raises(MapError, match='place 9'):
            store.add(frame(0), good, place_id=9)
        assert len(store) == 0 and store.search(good, 1) == []
        keyframe = store.add(frame(0), good)[0]
        assert [n.keyframe_id for n in store.search(good, 2)] == [keyframe.id]
        for call in (store.keyframe, store.thumbnail, store.camera):
            with pytest.raises(MapError, match='keyframe 8'):
                call(8)


def test_second_writer_is_told_who_holds_the_map(tmp_path: Path) -> None:
    code = (
        'import sys, os\nfrom netvlad_ros.keyframes import KeyframeMap\n'
        f'store = KeyframeMap.open(sys.argv[1], {MODEL!r}, {DIM})\n'
        'print(os.getpid(), flush=True)\nsys.stdin.read()\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )
    pid = process.stdout.readline().strip()
    with pytest.raises(MapError, match=f'process {pid} on .* since 20'):
        KeyframeMap.open(tmp_path, MODEL, DIM)
    KeyframeMap.open(tmp_path, MODEL, DIM, read_only=True).close()
    process.kill()
    process.wait()
    KeyframeMap.open(tmp_path, MODEL, DIM).close()


def test_a_reader_follows_the_writer_across_blocks(tmp_path: Path, small_blocks) -> None:
    vectors = unit_vectors(200)
    with KeyframeMap.open(tmp_path, MODEL, DIM) as writer:
        writer.begin_session('one')
        fill(writer, vectors[:50])
        with KeyframeMap.open(tmp_path, MODEL, DIM, read_only=True) as reader:
            writer.begin_session('two')
            fill(writer, vectors[50:], 50)
            assert reader.refresh() == 150 and reader.refresh() == 0
            for i in (0, 49, 50, 64, 199):
                assert reader.search(vectors[i], 1)[0].keyframe_id == i
            assert reader.keyframe(199).session == writer.session.uuid


def test_another_model_newer_schema_and_foreign_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeyframeMap.open(tmp_path / 'a', MODEL, DIM).close()
    with pytest.raises(MapError, match='redescribe'):
        KeyframeMap.open(tmp_path / 'a', 'other@0123456789ab', DIM)
    with pytest.raises(MapError, match='no map'):
        KeyframeMap.open(tmp_path / 'none', MODEL, DIM, read_only=True)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'map.sqlite').write_bytes(b'not a database, but long enough' * 100)
    with pytest.raises(MapError, match='damaged'):
        KeyframeMap.open(tmp_path / 'b', MODEL, DIM)
    monkeypatch.setattr(schema, 'SCHEMA_VERSION', schema.SCHEMA_VERSION + 1)
    monkeypatch.setitem(
        schema.MIGRATIONS, schema.SCHEMA_VERSION - 1,
        lambda connection: connection.execute('ALTER TABLE meta ADD COLUMN note'),
    )
    with pytest.raises(MapError, match='open it once for writing'):
        KeyframeMap.open(tmp_path / 'a', MODEL, DIM, read_only=True)
    KeyframeMap.open(tmp_path / 'a', MODEL, DIM).close()  # migrates
    KeyframeMap.open(tmp_path / 'a', MODEL, DIM, read_only=True).close()
    monkeypatch.undo()
    for read_only in (False, True):
        with pytest.raises(MapError, match='update netvlad_ros'):
            KeyframeMap.open(tmp_path / 'a', MODEL, DIM, read_only=read_only)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_searches_run_while_keyframes_are_added(
    dtype: str, tmp_path: Path, small_blocks
) -> None:
    path, config = tmp_path, MapConfig(dtype=dtype, threads=2)
    vectors = unit_vectors(400)
    with KeyframeMap.open(path, MODEL, DIM, config) as store:
        store.begin_session()
        wrong: list[object] = []

        def search() -> None:
            while len(store) < 400:
                count = len(store)
                for i in range(0, count, 37):
                    found = store.search(vectors[i], 1)
                    if found[0].keyframe_id != i:
                        wrong.append((i, count, found))

        thread = threading.Thread(target=search)
        thread.start()
        fill(store, vectors)
        thread.join()
        assert not wrong


@pytest.mark.parametrize('index', ['ivf_int8', 'ivf_pq'])
def test_clustered_index_is_trained_beside_the_map_and_finds_what_exact_finds(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('netvlad_ros.keyframes.adaptive_index._MIN_ROWS', 1500)
    monkeypatch.setattr('netvlad_ros.keyframes.adaptive_index._TAIL_ROWS', 100)
    monkeypatch.setattr('netvlad_ros.keyframes.adaptive_index._SMALL_BYTES', 100 * DIM * 4)
    rng = np.random.default_rng(5)
    centres = unit_vectors(60, 1)
    vectors = centres[rng.integers(0, 60, 2000)] + 0.1 * unit_vectors(2000, 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = MapConfig(index=index, threads=2)
    with KeyframeMap.open(tmp_path, MODEL, DIM, config) as store:
        session = store.begin_session().uuid
        fill(store, vectors[:1900])
        store.settle()
        fill(store, vectors[1900:], 1900)
        assert store.stats()['index'] == index
        hits = 0
        for i in range(0, 2000, 20):
            near = store.search(vectors[i], 3, Exclusion(ids=frozenset({i})))
            hits += near[0].keyframe_id == brute_force(
                vectors, vectors[i], np.arange(2000) != i, 1
            )[0]
            old = store.search(
                vectors[i], 3, Exclusion(session=session, newer_than_ns=1000 * S)
            )
            assert len(old) == 3 and all(n.keyframe_id <= 1000 for n in old)
            assert not {n.keyframe_id for n in near} & {i}
        assert hits >= 97
    with KeyframeMap.open(tmp_path, MODEL, DIM, config, read_only=True) as store:
        assert store.stats()['index_rows_clustered'] >= 1900  # read from the cache, not trained
        assert store.search(vectors[1950], 1)[0].keyframe_id == 1950
    cache = tmp_path / 'index.faiss'
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    cache.write_bytes(content)
    with KeyframeMap.open(tmp_path, MODEL, DIM, config, read_only=True) as store:
        assert store.stats()['index_rows_clustered'] == 0
        assert store.search(vectors[70], 1)[0].keyframe_id == 70


def test_auto_says_what_it_chose_and_why() -> None:
    tight = MapConfig(memory_budget_mb=1.0, latency_budget_ms=0.1)
    with KeyframeMap.open(None, MODEL, DIM, tight) as store:
        store.begin_session()
        fill(store, unit_vectors(5))
        stats = store.stats()
        assert (stats['index'], stats['index_reason']) == ('exact', 'fewer than 10000 keyframes')
        choose = store._vectors._index.choose
        # Exact takes 0.64 MB and 0.13 ms; int8 codes may take half of the memory.
        assert choose(10_000)[0] == 'ivf_int8'
        assert choose(20_000)[0] == 'ivf_pq'
        assert choose(5_000)[0] == 'exact'


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(('127.0.0.1', port), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError('the server did not start')


def test_two_robots_share_a_milvus_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip('milvus_lite')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable, '-m', 'milvus_lite', 'server', '--data-dir', tmp_path / 'data',
            '--host', '127.0.0.1', '--port', str(port),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    path = f'milvus+http://127.0.0.1:{port}'
    monkeypatch.setenv('NETVLAD_MILVUS_TOKEN', 'secret-token')
    vectors = unit_vectors(6)
    try:
        wait_for(port)
        with (
            KeyframeMap.open(path, MODEL, DIM, MapConfig(robot='anna')) as anna,
            KeyframeMap.open(path, MODEL, DIM, MapConfig(robot='bert')) as bert,
        ):
            anna.begin_session('a')
            bert.begin_session('b')
            a = [anna.add(frame(i, 'front'), vectors[i], None, b'jpeg')[0] for i in range(3)]
            b = [bert.add(frame(i), vectors[3 + i])[0] for i in range(3)]
            assert len({k.id for k in a + b}) == 6 and len(anna) == len(bert) == 3
            # Bert finds what Anna saw, with everything a closure needs.
            assert bert.search(vectors[1], 1)[0].keyframe_id == a[1].id
            seen = bert.keyframe(a[1].id)
            assert seen.session == anna.session.uuid and seen.place_id == a[1].place_id
            np.testing.assert_array_equal(seen.T_odom_base, a[1].T_odom_base)
            assert bert.camera(a[1].id).name == 'front' and bert.thumbnail(a[1].id) == b'jpeg'
            others = bert.search(vectors[1], 9, Exclusion(whole_session=seen.session))
            assert {n.keyframe_id for n in others} == {k.id for k in b}
            bert.add_closures([LoopClosure(b[0], seen, 0.9, MODEL)])
        with KeyframeMap.open(path, MODEL, DIM, MapConfig(robot='bert')) as bert:
            assert [k.id for k in bert.keyframes()] == [k.id for k in b]
            (closure,) = bert.closures()
            assert (closure.query.id, closure.match.id) == (b[0].id, a[1].id)
            np.testing.assert_array_equal(bert.descriptors([b[2].id, a[0].id]), vectors[[5, 0]])
        with pytest.raises(MapError, match='was made with'):
            KeyframeMap.open(path, 'other@0', DIM)
    finally:
        server.terminate()
        server.wait()
    assert 'secret-token' not in caplog.text
    with pytest.raises(ConfigError, match='NETVLAD_MILVUS_TOKEN') as error:
        KeyframeMap.open('milvus+http://user:secret-token@host:1', MODEL, DIM)
    assert 'secret-token' not in str(error.value)
