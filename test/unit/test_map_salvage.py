# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A map of which one database page is lost: everything that is not on that page is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import sqlite3

import numpy as np
import pytest

from netvlad_ros.keyframes import KeyframeMap, schema
from netvlad_ros.keyframes.tools import CopyReport, salvage
from netvlad_ros.keyframes.verify import verify
from netvlad_ros.types import Camera, ClosureStatus, Frame, LoopClosure

MODEL, DIM, S = 'test@0123456789ab', 16, 1_000_000_000
COUNT = 400
IMAGE = np.zeros((2, 2, 3), np.uint8)


@dataclass
class Whole:
    """A sound map and what it says."""

    folder: Path
    vectors: np.ndarray
    places: dict[int, tuple[int, list[int], int]]


def thumbnail_of(i: int) -> bytes:
    return b'picture %03d ' % i * 150  # overflows its page


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Make a map of two equal laps; in the second a keyframe founds a place or joins an old one.

    Places that are founded in the second lap are merged into those of the first.
    """
    folder = tmp_path_factory.mktemp('whole') / 'map'
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    half = COUNT // 2
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        for i, vector in enumerate(vectors):
            if i in {0, half}:
                store.begin_session(f'lap {i // half}')
            camera = Camera('front' if i % 2 else 'rear', 'optical', (640, 480), np.eye(3))
            place = i - half if i >= half and i % 3 == 0 else None
            frame = Frame(i * 30 * S, IMAGE, camera, np.eye(4))
            keyframe, _ = store.add(frame, vector, place, thumbnail_of(i))
            if i >= half:
                match = store.keyframe(i - half)
                link = LoopClosure(keyframe, match, 0.9, MODEL, status=ClosureStatus.VERIFIED)
                store.add_closures([link])
        places = {k.place_id: store.place(k.place_id) for k in store.keyframes()}
        names = {old: store.place(old) for old in range(half, max(places) + 1)}
    assert verify(folder).faults == ()
    return Whole(folder, vectors, places | names)


def damaged(whole: Whole, folder: Path, name: str, kind: str) -> int:
    """Copy a map but for one page of a table or index, which is overwritten; return its cells."""
    with sqlite3.connect(whole.folder / 'map.sqlite') as database:
        pages = database.execute(
            'SELECT pageno, ncell FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY path',
            (name, kind),
        ).fetchall()
    number, cells = pages[len(pages) // 2]
    folder.mkdir()
    for path in whole.folder.iterdir():
        content = bytearray(path.read_bytes())
        if path.name == 'map.sqlite':
            start = (number - 1) * schema.PAGE_SIZE
            content[start : start + schema.PAGE_SIZE] = b'\xa5' * schema.PAGE_SIZE
        (folder / path.name).write_bytes(content)
    return cells


def salvaged(whole: Whole, tmp_path: Path, name: str, kind: str) -> tuple[int, CopyReport]:
    cells = damaged(whole, tmp_path / 'map', name, kind)
    report = verify(tmp_path / 'map')
    assert report.faults and report.records['keyframes'] == COUNT
    saved = salvage(tmp_path / 'map', tmp_path / 'saved', report)
    assert verify(tmp_path / 'saved').faults == ()
    return cells, saved


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('thumbnails', 'leaf'), ('thumbnails', 'overflow'), ('places', 'leaf'),
        ('sessions', 'leaf'), ('cameras', 'leaf'), ('closures', 'leaf'),
        ('keyframes_by_place', 'leaf'), ('keyframes_core', 'leaf'), ('closures_by_match', 'leaf'),
        ('closures_by_stamp', 'leaf'), ('provenance', 'leaf'),
    ],
)
def test_a_page_that_holds_no_keyframe_costs_no_keyframe(
    name: str, kind: str, whole: Whole, tmp_path: Path
) -> None:
    cells, saved = salvaged(whole, tmp_path, name, kind)
    assert (saved.keyframes_after, saved.lost) == (COUNT, 0)
    with KeyframeMap.open(tmp_path / 'saved', MODEL, DIM, read_only=True) as store:
        np.testing.assert_array_equal(store.descriptors(range(COUNT)), whole.vectors)
        pictures = [store.thumbnail(i) for i in range(COUNT)]
        lost = [i for i in range(COUNT) if pictures[i] is None]
        assert all(pictures[i] == thumbnail_of(i) for i in range(COUNT) if i not in lost)
        if name == 'thumbnails':
            assert 1 <= len(lost) <= max(cells, 1)
        else:
            assert lost == []
        missing = COUNT // 2 - len(store.closures())
        assert missing == (cells + 1 if name == 'closures' else 0)  # and the one that follows
        keyframes = store.keyframes()
        sessions = [session.uuid for session in store.sessions]
        assert [k.session for k in keyframes] == [sessions[i >= 200] for i in range(COUNT)]
        known = name not in {'sessions', 'cameras'}
        assert [s.name for s in store.sessions] == ['lap 0', 'lap 1'] or not known
        assert [k.camera for k in keyframes[:2]] == ['rear', 'front'] or not known
        for place_id, place in whole.places.items():
            assert store.place(place_id) == place
    with KeyframeMap.open(tmp_path / 'saved', MODEL, DIM) as store:
        assert store.add(Frame(0, IMAGE), whole.vectors[0], 5)[0].id == COUNT


@pytest.mark.parametrize('kind', ['leaf', 'internal'])
def test_a_page_of_keyframes_costs_those_on_it(
    kind: str, whole: Whole, tmp_path: Path
) -> None:
    cells, saved = salvaged(whole, tmp_path, 'keyframes', kind)
    assert saved.lost == (cells if kind == 'leaf' else COUNT)
    with KeyframeMap.open(tmp_path / 'saved', MODEL, DIM, read_only=True) as store:
        ids = [keyframe.id for keyframe in store.keyframes()]
        assert len(ids) == saved.keyframes_after
        # The descriptors after the lost ones are those of their own keyframes.
        np.testing.assert_array_equal(store.descriptors(ids), whole.vectors[ids])
        assert all(store.thumbnail(i) == thumbnail_of(i) for i in ids)
        linked = {(i, i - 200) for i in ids if i - 200 in ids}
        assert {(c.query.id, c.match.id) for c in store.closures()} == linked


def test_several_lost_pages(whole: Whole, tmp_path: Path) -> None:
    """Between two lost pages of a table the rows are found by their keys."""
    with sqlite3.connect(whole.folder / 'map.sqlite') as database:
        pages = database.execute(
            "SELECT pageno, ncell FROM dbstat WHERE name = 'keyframes' AND pagetype = 'leaf' "
            'ORDER BY path'
        ).fetchall()
    cells = damaged(whole, tmp_path / 'map', 'places', 'leaf')
    assert cells > 1
    content = bytearray((tmp_path / 'map' / 'map.sqlite').read_bytes())
    for number, _ in (pages[3], pages[-2]):
        start = (number - 1) * schema.PAGE_SIZE
        content[start : start + schema.PAGE_SIZE] = b'\xa5' * schema.PAGE_SIZE
    (tmp_path / 'map' / 'map.sqlite').write_bytes(content)
    saved = salvage(tmp_path / 'map', tmp_path / 'saved', verify(tmp_path / 'map'))
    assert saved.lost == pages[3][1] + pages[-2][1]
    assert verify(tmp_path / 'saved').faults == ()
