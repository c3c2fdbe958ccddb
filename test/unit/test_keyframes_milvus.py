# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Robots that share a map in Milvus keep their own keyframes, places and numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.keyframes.milvus_store import MilvusStore
from netvlad_ros.types import ClosureStatus, Frame, LoopClosure

pytest.importorskip('milvus_lite')

MODEL, DIM, S = 'test@0123456789ab', 16, 1_000_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)
VECTORS = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0].astype(np.float32)
# Their numbers are smaller and larger than bert's: of two places the larger number is merged.
SMALLER_AND_LARGER = ('eve', 'anna')


def share(path: str, robot: str, read_only: bool = False) -> KeyframeMap:
    return KeyframeMap.open(path, MODEL, DIM, MapConfig(robot=robot), read_only)


def meet(path: str, guest: str) -> tuple[list[int], list[int]]:
    """Let bert map five keyframes, and a guest join and merge places; returns both's ids."""
    with share(path, 'bert') as bert:
        his = [bert.add(Frame(i * S, IMAGE), VECTORS[i], None, b'%d' % i)[0].id for i in range(5)]
    with share(path, guest) as store:
        first, *_, last = [store.keyframe(i) for i in his]
        a = store.add(Frame(0, IMAGE), VECTORS[5])[0]
        b = store.add(Frame(30 * S, IMAGE), VECTORS[6], first.place_id)[0]
        store.add_closures([LoopClosure(a, last, 0.9, MODEL, status=ClosureStatus.VERIFIED)])
        assert store.keyframe(last.id).place_id == store.keyframe(a.id).place_id
    return his, [a.id, b.id]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f'milvus+file:{tmp_path}/map.db'


@pytest.mark.parametrize('guest', SMALLER_AND_LARGER)
def test_a_robot_keeps_what_another_changed(guest: str, path: str) -> None:
    his, theirs = meet(path, guest)
    with share(path, 'bert') as bert:
        assert len(bert) == 5 and {k.id for k in bert.keyframes()} == set(his)
        np.testing.assert_array_equal(bert.descriptors(his), VECTORS[:5])
        for keyframe in bert.keyframes():
            assert keyframe.id in bert.place(keyframe.place_id)[1]
        keyframe, visit = bert.add(Frame(99 * S, IMAGE), VECTORS[7])
        assert keyframe.id == visit.place_id == his[-1] + 1
    with share(path, guest) as store:
        for keyframe_id in theirs:
            assert keyframe_id in store.place(store.keyframe(keyframe_id).place_id)[1]
        (closure,) = store.closures()
        assert (closure.query.id, closure.match.id) == (theirs[0], his[-1])
        assert store.add(Frame(99 * S, IMAGE), VECTORS[8])[0].id == theirs[-1] + 1


@pytest.mark.parametrize('guest', SMALLER_AND_LARGER)
def test_keyframes_that_an_older_program_gave_to_another_robot_come_back(
    guest: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(MilvusStore, '_robot_of', lambda self, number: self._robot)
        his, _ = meet(path, guest)
    with share(path, 'bert') as bert:
        np.testing.assert_array_equal(bert.descriptors(his), VECTORS[:5])
        keyframe, visit = bert.add(Frame(99 * S, IMAGE), VECTORS[7])
        assert keyframe.id == visit.place_id == his[-1] + 1


def test_a_descriptor_whose_keyframe_was_never_stored_is_removed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with share(path, 'bert') as bert:
        kept = bert.add(Frame(0, IMAGE), VECTORS[0])[0].id
        with monkeypatch.context() as crash:
            crash.setattr(MilvusStore, '_record', lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                bert.add(Frame(S, IMAGE), VECTORS[1])
    with share(path, 'anna') as anna:
        assert len(anna.search(VECTORS[1], 9)) == 2  # it cannot know yet
    share(path, 'bert').close()
    with share(path, 'anna') as anna:
        assert [hit.keyframe_id for hit in anna.search(VECTORS[1], 9)] == [kept]


def test_a_closure_may_name_a_keyframe_that_was_not_fetched_yet(path: str) -> None:
    with share(path, 'bert') as bert:
        his = [bert.add(Frame(i * S, IMAGE), VECTORS[i])[0] for i in range(2)]
    with share(path, 'anna') as anna:
        hers = anna.add(Frame(0, IMAGE), VECTORS[5])[0]
        anna.add_closures([LoopClosure(hers, match, 0.9, MODEL) for match in his])
    with share(path, 'anna') as anna:
        assert [closure.match.id for closure in anna.closures()] == [k.id for k in his]


def test_a_robot_without_keyframes_reads_those_of_others(path: str) -> None:
    with share(path, 'bert') as bert:
        keyframe_id = bert.add(Frame(0, IMAGE), VECTORS[0])[0].id
    with share(path, 'anna', read_only=True) as anna:
        assert len(anna) == 0
        assert anna.search(VECTORS[0], 1)[0].keyframe_id == keyframe_id
        assert anna.keyframe(keyframe_id).session


def test_a_copy_in_a_folder_has_everything_and_goes_on(path: str, tmp_path: Path) -> None:
    his, _ = meet(path, 'eve')
    with share(path, 'bert') as bert:
        assert bert.save_copy(tmp_path / 'copy') == 5
        before = bert.keyframes()
    with KeyframeMap.open(tmp_path / 'copy', MODEL, DIM) as copy:
        assert copy.keyframes() == before
        np.testing.assert_array_equal(copy.descriptors(his), VECTORS[:5])
        assert [copy.thumbnail(i) for i in his] == [b'%d' % i for i in range(5)]
        keyframe, visit = copy.add(Frame(99 * S, IMAGE), VECTORS[7])
        assert keyframe.id == his[-1] + 1 and visit.place_id > max(k.place_id for k in before)
        assert copy.search(VECTORS[7], 1)[0].keyframe_id == keyframe.id
    with pytest.raises(MapError, match='exists'), share(path, 'anna') as anna:
        anna.save_copy(tmp_path / 'copy')


def test_of_two_programs_with_one_name_the_first_stops_before_it_overwrites(path: str) -> None:
    with share(path, 'bert') as first:
        own = first.add(Frame(0, IMAGE), VECTORS[0])[0]
        with share(path, 'bert') as second:
            theirs = [second.add(Frame(i * S, IMAGE), VECTORS[i])[0].id for i in (1, 2)]
            with pytest.raises(MapError, match=r"writes as robot 'bert' since: set map\.robot"):
                first.add(Frame(9 * S, IMAGE), VECTORS[3])
    with share(path, 'bert') as after:
        assert {k.id for k in after.keyframes()} == {own.id, *theirs}
        np.testing.assert_array_equal(after.descriptors([own.id, *theirs]), VECTORS[:3])
