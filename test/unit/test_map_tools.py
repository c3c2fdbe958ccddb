# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tools of ``netvlad map``, and the rules by which places grow, merge and split."""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
import errno
import json
import math
from pathlib import Path
import shutil
import sqlite3

import cv2
import faiss
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from netvlad_ros import descriptor
from netvlad_ros.cli import map as map_command
from netvlad_ros.errors import InputError, MapError
from netvlad_ros.evaluation.source_folder import read_tum
from netvlad_ros.keyframes import KeyframeMap, MapConfig, export
from netvlad_ros.keyframes.prune import prune
from netvlad_ros.keyframes.tools import redescribe
from netvlad_ros.keyframes.verify import verify
from netvlad_ros.types import ClosureStatus, Frame, Keyframe, LoopClosure

MODEL, DIM, S = 'test@0123456789ab', 16, 1_000_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)


def vectors_of(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pose(i: int) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('xyz', [0.1 * i, 0.2, -i]).as_matrix()
    T[:3, 3] = i, i / 3, -0.5
    return T


def closure(query: Keyframe, match: Keyframe, status: ClosureStatus) -> LoopClosure:
    return LoopClosure(query, match, 0.9, MODEL, status=status)


def make_map(folder: Path | None, count: int = 30, seed: int = 0) -> np.ndarray:
    """A drive of two equal laps; the second visits the places of the first."""
    lap = vectors_of(count // 2, seed)
    vectors = np.concatenate([lap, lap])
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        store.begin_session(f'drive {seed}')
        for i, vector in enumerate(vectors):
            jpeg = cv2.imencode('.jpg', np.full((24, 32, 3), 8 * i % 255, np.uint8))[1].tobytes()
            first = i - count // 2
            frame = Frame(i * 10 * S, IMAGE, T_odom_base=None if i == 3 else pose(i))
            keyframe, _ = store.add(frame, vector, first if first >= 0 else None, jpeg)
            if first >= 0:
                match = store.keyframe(first)
                store.add_closures([closure(keyframe, match, ClosureStatus.VERIFIED)])
    return vectors


def netvlad_map(*arguments: object) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    map_command.add_arguments(parser)
    return map_command.run(parser.parse_args([str(argument) for argument in arguments]))


# Places


def test_a_place_counts_visits_and_keeps_its_representative() -> None:
    with KeyframeMap.open(None, MODEL, DIM, MapConfig(visit_gap_s=20.0)) as store:
        store.begin_session()
        vector = vectors_of(1)[0]
        visits = [
            store.add(Frame(t * S, IMAGE), vector, place)[1]
            for t, place in ((0, None), (5, 0), (20, 0), (41, 0), (60, 0))
        ]
        assert [(v.place_id, v.is_new, v.visits) for v in visits] == [
            (0, True, 1), (0, False, 1), (0, False, 1), (0, False, 2), (0, False, 2),
        ]
        store.begin_session()  # a new run is a new visit, whatever its clock says
        assert store.add(Frame(61 * S, IMAGE), vector, 0)[1].visits == 3
        assert store.place(0) == (0, [0, 1, 2, 3, 4, 5], 3)


def test_verified_closure_merges_and_its_rejection_splits_again(tmp_path: Path) -> None:
    vectors = vectors_of(6)
    with KeyframeMap.open(tmp_path / 'map', MODEL, DIM) as store:
        store.begin_session()
        add = lambda i, place: store.add(Frame(i * 60 * S, IMAGE), vectors[i], place)[0]  # noqa: E731
        a, a2, b, b2 = add(0, None), add(1, 0), add(2, None), add(3, 1)
        link = closure(b, a, ClosureStatus.CANDIDATE)
        store.add_closures([link])
        assert store.place(1)[0] == 1  # a candidate changes nothing
        store.update_closure(replace(link, status=ClosureStatus.VERIFIED))
        assert store.place(1) == store.place(0) == (0, [a.id, a2.id, b.id, b2.id], 4)
        # The old name still works, also for the next keyframe and after a restart.
        assert store.add(Frame(240 * S, IMAGE), vectors[4], 1)[1].place_id == 0
    with KeyframeMap.open(tmp_path / 'map', MODEL, DIM) as store:
        assert store.place(1)[0] == 0
        store.update_closure(replace(link, status=ClosureStatus.REJECTED))
        # b and what was added to b's place get their place back; the rest stays.
        assert store.place(1) == (1, [b.id, b2.id], 2)
        assert store.place(0)[1] == [a.id, a2.id, 4]
        assert verify(tmp_path / 'map').faults == ()


def test_a_street_of_places_is_not_chained_into_one() -> None:
    """Three places of one lap; the next lap sees each of them and its neighbours again."""
    vectors = vectors_of(7)
    with KeyframeMap.open(None, MODEL, DIM) as store:
        store.begin_session()
        add = lambda i, place: store.add(Frame(i * 60 * S, IMAGE), vectors[i], place)[0]  # noqa: E731
        lap_1 = [add(i, None) for i in range(3)]
        scores = ((30.0, 20.0, 10.0), (20.0, 30.0, 20.0), (10.0, 20.0, 30.0))
        for i, row in enumerate(scores):
            query = add(3 + i, None)
            link = [closure(query, m, ClosureStatus.VERIFIED) for m in lap_1]
            store.add_closures(
                [replace(c, verification_score=s) for c, s in zip(link, row, strict=True)]
            )
        member = add(6, 0)
        store.add_closures([closure(member, lap_1[1], ClosureStatus.VERIFIED)])
        assert [store.place(i)[1] for i in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]


def test_rejection_splits_only_what_nothing_else_holds() -> None:
    vectors = vectors_of(4)
    with KeyframeMap.open(None, MODEL, DIM) as store:
        store.begin_session()
        frames = [Frame(i * 60 * S, IMAGE) for i in range(4)]
        a = store.add(frames[0], vectors[0])[0]
        b = store.add(frames[1], vectors[1], 0)[0]
        store.add_closures([closure(b, a, ClosureStatus.VERIFIED)])
        c = store.add(frames[2], vectors[2], 0)[0]
        store.add_closures([closure(c, a, ClosureStatus.CANDIDATE)])
        store.add_closures([closure(c, b, ClosureStatus.CANDIDATE)])
        store.update_closure(closure(c, a, ClosureStatus.REJECTED))
        assert store.keyframe(c.id).place_id == 0  # c - b - a still holds
        store.update_closure(closure(c, b, ClosureStatus.REJECTED))
        assert store.keyframe(c.id).place_id == 1 and store.place(0)[1:] == ([a.id, b.id], 2)
        assert store.add(frames[3], vectors[3])[1].place_id == 2  # ids are not given twice


# Damage


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(content)


def test_verify_names_each_damaged_record_and_salvage_keeps_the_others(tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    vectors = make_map(folder)
    assert verify(folder).faults == ()
    block = folder / 'block_000000.bin'
    flip(block, block.stat().st_size - (30 - 12) * DIM * 4 + 5)  # descriptor of keyframe 12
    database = sqlite3.connect(folder / 'map.sqlite')
    database.execute('UPDATE keyframes SET stamp_ns = stamp_ns + 1 WHERE id = 4')
    database.execute("UPDATE thumbnails SET jpeg = x'00' WHERE keyframe_id = 7")
    database.execute('UPDATE closures SET similarity = 1 WHERE query_id = 20')
    database.execute('DELETE FROM places WHERE id = 9')
    database.commit()
    database.close()
    report = verify(folder)
    assert {(fault.table, fault.key) for fault in report.faults} == {
        ('descriptors', '12'), ('keyframes', '4'), ('thumbnails', '7'), ('closures', '20-5'),
        ('places', '9'),
    }
    with pytest.raises(MapError, match='5 damaged records, 2 keyframes are lost'):
        netvlad_map('verify', folder)
    summary = netvlad_map('verify', folder, '--salvage', tmp_path / 'saved')
    assert summary['saved'] == 28
    assert verify(tmp_path / 'saved').faults == ()
    with KeyframeMap.open(tmp_path / 'saved', MODEL, DIM, read_only=True) as store:
        ids = [keyframe.id for keyframe in store.keyframes()]
        assert ids == [i for i in range(30) if i not in {4, 12}]
        np.testing.assert_array_equal(store.descriptors(ids), vectors[ids])
        assert store.thumbnail(7) is None and store.thumbnail(8) is not None
        assert len(store.closures()) == 15 - 3  # 19-4, 20-5, 27-12
        assert store.place(9) == (9, [9, 24], 2)  # made anew


@pytest.mark.parametrize('left', ['half', 'nothing', 'no file'])
def test_cut_block_file(left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('netvlad_ros.keyframes.blocks.TAIL_ROWS', 4)
    folder = tmp_path / 'map'
    make_map(folder)
    block = folder / 'block_000000.bin'
    if left == 'no file':
        block.unlink()
    else:
        data = 30 * DIM * 4
        cut = data // 2 if left == 'half' else block.stat().st_size
        with block.open('r+b') as file:
            file.truncate(block.stat().st_size - cut)
    for read_only in (False, True):
        with pytest.raises(MapError, match='netvlad map verify'):
            KeyframeMap.open(folder, MODEL, DIM, read_only=read_only)
    lost = {str(i) for i in range(15 if left == 'half' else 0, 30)}
    faults = verify(folder).faults
    assert {fault.key for fault in faults if fault.table == 'descriptors'} == lost
    saved = netvlad_map('verify', folder, '--salvage', tmp_path / 'saved')['saved']
    assert saved == 30 - len(lost) and verify(tmp_path / 'saved').faults == ()


def test_damaged_database_pages_are_named(tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        for i, vector in enumerate(vectors_of(100)):
            store.add(Frame(i * S, IMAGE), vector, None, b'picture %03d ' % i * 10)
    database = folder / 'map.sqlite'
    content = bytearray(database.read_bytes())
    start = content.index(b'picture 050') // 1024 * 1024
    content[start : start + 64] = b'\xa5' * 64  # the head of that page
    database.write_bytes(content)
    named = {int(fault.key) for fault in verify(folder).faults if fault.table == 'thumbnails'}
    assert 50 in named and len(named) < 20


def test_a_damaged_keyframe_is_left_out_of_a_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / 'map'
    vectors = make_map(folder)
    block = folder / 'block_000000.bin'
    flip(block, block.stat().st_size - (30 - 12) * DIM * 4 + 5)  # descriptor of keyframe 12
    with KeyframeMap.open(folder, MODEL, DIM, read_only=True) as store:
        assert store.damaged == [12]
        assert store.save_copy(tmp_path / 'copy') == 29
    assert '29 keyframes; 1 of' in caplog.text and 'were left out: [12]' in caplog.text
    assert verify(tmp_path / 'copy').faults == ()
    with KeyframeMap.open(tmp_path / 'copy', MODEL, DIM, read_only=True) as store:
        ids = [keyframe.id for keyframe in store.keyframes()]
        assert ids == [i for i in range(30) if i != 12]
        np.testing.assert_array_equal(store.descriptors(ids), vectors[ids])
        assert 27 not in {c.query.id for c in store.closures()} and len(store.closures()) == 14


def test_a_block_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    make_map(tmp_path / 'map')
    block = tmp_path / 'map' / 'block_000000.bin'
    content = bytearray(block.read_bytes())
    content[8] = 9
    block.write_bytes(content)
    with pytest.raises(MapError, match=r'version 9.*update netvlad_ros'):
        KeyframeMap.open(tmp_path / 'map', MODEL, DIM)


# Tools


def test_info_and_exports(tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    vectors = make_map(folder)
    info = netvlad_map('info', folder)
    assert (info['keyframes'], info['places'], info['places_visited_again']) == (30, 15, 15)
    assert info['closures'] == {'candidate': 0, 'consistent': 0, 'verified': 15, 'rejected': 0}
    assert info['most_visited_places'][0] == {
        'place': 0, 'visits': 2, 'keyframes': 2, 'represented_by': 0,
    }
    json.dumps(info)
    out = tmp_path / 'out'
    counts = {
        kind: netvlad_map('export', folder, '--format', kind, '--output', out / kind)['keyframes']
        for kind in ('csv', 'tum', 'npz', 'faiss', 'html')
    }
    assert counts == {'csv': 30, 'tum': 29, 'npz': 30, 'faiss': 30, 'html': 30}
    rows = list(csv.DictReader((out / 'csv').open()))
    assert list(rows[0]) == [
        'id', 'stamp_ns', 'session', 'place_id', 'tx', 'ty', 'tz', 'qx', 'qy', 'qz', 'qw',
    ]
    assert (rows[20]['id'], rows[20]['place_id'], rows[3]['tx']) == ('20', '5', '')
    assert float(rows[20]['ty']) == 20 / 3
    tum = np.loadtxt(out / 'tum')
    np.testing.assert_allclose(tum[5, :4], [60.0, 6, 2, -0.5])
    np.testing.assert_allclose(
        Rotation.from_quat(tum[5, 4:]).as_matrix(), pose(6)[:3, :3], atol=1e-8
    )
    arrays = np.load(out / 'npz')
    np.testing.assert_array_equal(arrays['descriptors'], vectors)
    np.testing.assert_array_equal(arrays['T_odom_base'][7], pose(7))
    assert np.isnan(arrays['T_odom_base'][3]).all()
    index = faiss.read_index(str(out / 'faiss'))
    assert set(index.search(vectors[4:5], 2)[1][0].tolist()) == {4, 19}
    page = (out / 'html').read_text()
    assert page.count('"jpeg": "/9j/') == 30 and page.count('"status": 2') == 15
    with pytest.raises(MapError, match='cannot write'):
        netvlad_map('export', folder, '--format', 'csv', '--output', folder)


def test_a_negative_stamp_is_read_back_from_an_exported_trajectory(tmp_path: Path) -> None:
    with KeyframeMap.open(tmp_path / 'map', MODEL, DIM) as store:
        store.begin_session()
        store.add(Frame(-3 * S // 2, IMAGE, T_odom_base=pose(1)), vectors_of(1)[0])
    netvlad_map('export', tmp_path / 'map', '--format', 'tum', '--output', tmp_path / 'tum')
    assert read_tum(tmp_path / 'tum').stamps_ns.tolist() == [-3 * S // 2]


def test_an_export_overwrites_no_map_and_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / 'map', tmp_path / 'out.csv'
    make_map(folder)
    make_map(tmp_path / 'other', 4)
    (tmp_path / 'link').symlink_to(folder / 'map.sqlite')
    outputs = ('map/map.sqlite', 'map/sub/out.csv', 'other/map.sqlite', 'link')
    for output in outputs:
        with pytest.raises(MapError, match='lies in the folder of a map'):
            netvlad_map('export', folder, '--format', 'csv', '--output', tmp_path / output)
    assert verify(folder).faults == () and verify(tmp_path / 'other').faults == ()
    netvlad_map('export', folder, '--format', 'csv', '--output', out)
    written = out.read_bytes()
    (tmp_path / 'device').symlink_to('/dev/full')
    for kind in ('csv', 'faiss'):
        with pytest.raises(MapError, match='cannot write'):
            netvlad_map('export', folder, '--format', kind, '--output', tmp_path / 'device')
    assert (tmp_path / 'device').is_char_device()

    def write_half(reader: object, output: Path) -> int:
        output.write_text('id,')
        raise OSError(errno.ENOSPC, 'the disk is full')

    monkeypatch.setitem(export.FORMATS, 'csv', write_half)
    with pytest.raises(MapError, match='the disk is full'):
        netvlad_map('export', folder, '--format', 'csv', '--output', out)
    assert out.read_bytes() == written
    assert {path.name for path in tmp_path.iterdir()} == {
        'map', 'other', 'link', 'device', 'out.csv',
    }


def test_merge_keeps_sessions_apart_and_counts_ids_on(tmp_path: Path) -> None:
    first, second = make_map(tmp_path / 'a'), make_map(tmp_path / 'b', 20, seed=1)
    netvlad_map('merge', tmp_path / 'a', tmp_path / 'b', '--output', tmp_path / 'c')
    assert verify(tmp_path / 'c').faults == ()
    with KeyframeMap.open(tmp_path / 'c', MODEL, DIM) as store:
        assert [s.name for s in store.sessions] == ['drive 0', 'drive 1']
        np.testing.assert_array_equal(store.descriptors(range(50)), np.vstack([first, second]))
        assert store.keyframe(40).place_id == 15 and store.place(15) == (15, [30, 40], 2)
        assert {(c.query.id, c.match.id) for c in store.closures()} >= {(15, 0), (40, 30)}
        assert store.thumbnail(49) is not None
        assert store.add(Frame(0, IMAGE), first[0])[0].id == 50
    with pytest.raises(MapError, match='already in the map'):
        netvlad_map('merge', tmp_path / 'a', tmp_path / 'c', '--output', tmp_path / 'd')
    assert not (tmp_path / 'd').exists() and not (tmp_path / 'd.partial').exists()
    with pytest.raises(MapError, match='exists already'):
        netvlad_map('merge', tmp_path / 'a', tmp_path / 'b', '--output', tmp_path / 'c')


def test_prune_drops_look_alikes_first_and_says_what_it_costs(tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    rng = np.random.default_rng(3)
    lap = vectors_of(20)
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        store.begin_session()
        for i in range(60):
            vector = lap[i % 20] + 0.02 * rng.standard_normal(DIM)
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            store.add(Frame(i * 10 * S, IMAGE), vector, i - 20 if i >= 40 else None)
    summary = netvlad_map('prune', folder, '--keep', 40, '--output', tmp_path / 'small')
    assert (summary['keyframes_before'], summary['keyframes_after']) == (60, 40)
    # Places have one or two members; those with two are keyframes 20 to 59.
    assert (summary['queries'], summary['recall_before']) == (40, pytest.approx(0.5, abs=0.3))
    assert verify(tmp_path / 'small').faults == ()
    with KeyframeMap.open(tmp_path / 'small', MODEL, DIM, read_only=True) as store:
        kept = {keyframe.id for keyframe in store.keyframes()}
        assert kept == set(range(40))  # representatives stay, each look-alike of a place goes
    assert prune(folder, tmp_path / 'one', 1).keyframes_after == 1
    with pytest.raises(MapError, match='budget is 0'):
        prune(folder, tmp_path / 'none', 0)


class GreyDescriptor:
    """Describes an image by its brightness, in another dimension than the map's."""

    model_id, dim = 'grey@ba9876543210', 8

    def compute(self, images_rgb: list[np.ndarray]) -> np.ndarray:
        """Return (N, 8) unit vectors."""
        angle = np.array([image.mean() / 255 for image in images_rgb], np.float32)
        vectors = np.zeros((len(angle), self.dim), np.float32)
        vectors[:, 0], vectors[:, 1] = np.cos(angle), np.sin(angle)
        return vectors


def test_redescribe_from_thumbnails_and_from_images(tmp_path: Path) -> None:
    folder = tmp_path / 'map'
    make_map(folder)
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        store.add(Frame(999 * S, IMAGE), vectors_of(1)[0])  # without a thumbnail
    report = redescribe(folder, tmp_path / 'new', GreyDescriptor())
    assert (report.keyframes_before, report.keyframes_after, report.lost) == (31, 30, 1)
    assert verify(tmp_path / 'new').faults == ()
    with KeyframeMap.open(tmp_path / 'new', GreyDescriptor.model_id, 8) as store:
        angle = 8 * 11 / 255
        query = np.zeros(8, np.float32)
        query[:2] = np.cos(angle), np.sin(angle)
        assert store.search(query, 1)[0].keyframe_id == 11
        assert len(store.closures()) == 15 and store.place(4)[1] == [4, 19]
        assert store.sessions[0].model_id == GreyDescriptor.model_id
    white = Frame(999 * S, np.full((4, 4, 3), 255, np.uint8))
    report = redescribe(folder, tmp_path / 'white', GreyDescriptor(), [white])
    assert (report.from_source, report.from_thumbnails, report.lost) == (1, 30, 0)
    with KeyframeMap.open(tmp_path / 'white', GreyDescriptor.model_id, 8) as store:
        np.testing.assert_allclose(store.descriptors([30])[0, :2], [math.cos(1), math.sin(1)])


def sequence_of(folder: Path, first: int, count: int) -> Path:
    """Write a recording of ``make_map``, where each image is brighter by 1 than the thumbnail."""
    folder.mkdir()
    rows = ['image,stamp_s']
    for i in range(first, first + count):
        image = np.full((24, 32, 3), 8 * i % 255 + 1, np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
        rows.append(f'{i}.png,{10 * i}')
    (folder / 'frames.csv').write_text('\n'.join(rows) + '\n')
    return folder


def test_redescribe_finds_the_images_of_a_merged_map_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(descriptor, 'load_descriptor', lambda config: GreyDescriptor())
    # The second map begins with stamps that the first has passed.
    make_map(tmp_path / 'a')
    make_map(tmp_path / 'b', 20, seed=1)
    netvlad_map('merge', tmp_path / 'a', tmp_path / 'b', '--output', tmp_path / 'c')
    late, early = sequence_of(tmp_path / 'late', 15, 10), sequence_of(tmp_path / 'early', 0, 15)
    sources = ('--source', late, '--source', early)
    report = netvlad_map('redescribe', tmp_path / 'c', *sources, '--output', tmp_path / 'd')
    assert (report['keyframes_after'], report['from_source']) == (50, 45)
    assert '45 by images of the source, 5 by thumbnails; 0 had no' in capsys.readouterr().out
    assert verify(tmp_path / 'd').faults == ()
    with KeyframeMap.open(tmp_path / 'd', GreyDescriptor.model_id, 8) as store:
        angles = np.arccos(store.descriptors(range(50))[:, 0]) * 255
    numbers = np.array([*range(30), *range(20)])
    np.testing.assert_allclose(angles, 8 * numbers % 255 + (numbers < 25), atol=0.1)


def test_redescribe_refuses_a_source_of_another_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor, 'load_descriptor', lambda config: GreyDescriptor())
    make_map(tmp_path / 'map')
    other = sequence_of(tmp_path / 'other', 100, 3)
    words = r'images are of 1000\.000 to 1020\.000 s, the keyframes of 0\.000 to 290\.000 s'
    with pytest.raises(MapError, match=words):
        netvlad_map('redescribe', tmp_path / 'map', '--source', other, '--output', tmp_path / 'n')
    (other / 'frames.csv').unlink()
    with pytest.raises(InputError, match=r'only netvlad evaluate takes'):
        netvlad_map('redescribe', tmp_path / 'map', '--source', other, '--output', tmp_path / 'n')
    with KeyframeMap.open(tmp_path / 'bare', MODEL, DIM) as store:
        store.begin_session()
        store.add(Frame(0, IMAGE), vectors_of(1)[0])
    with pytest.raises(MapError, match=r'none of the 1 keyframes .* --source'):
        netvlad_map('redescribe', tmp_path / 'bare', '--output', tmp_path / 'n')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bare', 'map', 'other']


def test_a_failed_tool_leaves_nothing_behind(tmp_path: Path) -> None:
    make_map(tmp_path / 'map')
    shutil.copytree(tmp_path / 'map', tmp_path / 'broken')
    (tmp_path / 'broken' / 'block_000000.bin').unlink()
    with pytest.raises(MapError):
        netvlad_map('prune', tmp_path / 'broken', '--keep', 5, '--output', tmp_path / 'new')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['broken', 'map']
