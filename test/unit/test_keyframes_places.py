# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Places that were pruned, and places with very many keyframes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.keyframes.prune import prune
from netvlad_ros.keyframes.verify import verify
from netvlad_ros.types import ClosureStatus, Frame, LoopClosure

MODEL, DIM, S = 'test@0123456789ab', 32, 1_000_000_000
IMAGE = np.zeros((2, 2, 3), np.uint8)


def add(store: KeyframeMap, vector: np.ndarray, place_id: int | None, pause_s: int = 60) -> int:
    last_ns = store.keyframe(store.keyframes()[-1].id).stamp_ns if len(store) else 0
    return store.add(Frame(last_ns + pause_s * S, IMAGE), vector, place_id)[0].id


def close(store: KeyframeMap, query: int, match: int, status: ClosureStatus) -> None:
    pair = store.keyframe(query), store.keyframe(match)
    store.add_closures([LoopClosure(*pair, 0.9, MODEL, status=status)])


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """Make a map whose place 0 is [0, 6, 7, 8]; keyframe 5, which founded theirs, was pruned."""
    vectors = np.eye(DIM, dtype=np.float32)
    vectors[5] = vectors[0]
    with KeyframeMap.open(tmp_path / 'map', MODEL, DIM) as store:
        for i in range(9):
            add(store, vectors[i], 5 if i > 5 else None)
        close(store, 5, 0, ClosureStatus.VERIFIED)
        assert store.place(0)[1] == [0, 5, 6, 7, 8]
    prune(tmp_path / 'map', tmp_path / 'pruned', 8)
    with KeyframeMap.open(tmp_path / 'pruned', MODEL, DIM) as store:
        assert store.place(0)[1] == [0, 6, 7, 8]
    return tmp_path / 'pruned'


def test_an_unrelated_rejection_leaves_a_pruned_place_whole(pruned: Path) -> None:
    with KeyframeMap.open(pruned, MODEL, DIM) as store:
        query = add(store, np.eye(DIM, dtype=np.float32)[9], 0)
        close(store, query, 0, ClosureStatus.REJECTED)
        assert store.place(0)[1] == [0, 6, 7, 8]
        assert store.keyframe(query).place_id == 6
    assert verify(pruned).faults == ()


def test_members_of_a_pruned_founder_leave_together(pruned: Path) -> None:
    with KeyframeMap.open(pruned, MODEL, DIM) as store:
        query = add(store, np.eye(DIM, dtype=np.float32)[9], 0)
        close(store, query, 0, ClosureStatus.VERIFIED)
        close(store, query, 7, ClosureStatus.REJECTED)
        assert store.place(0)[1] == [0, query]
        assert store.place(6)[1] == [6, 7, 8]


def test_a_rejected_member_does_not_take_others_of_its_place_along() -> None:
    """Two places are one by a closure; a rejection of one member parts only that one."""
    vectors = np.eye(DIM, dtype=np.float32)
    with KeyframeMap.open(None, MODEL, DIM) as store:
        for i, place_id in enumerate((None, 0, None, 1, 0, 1)):
            add(store, vectors[i], place_id)
        close(store, 2, 0, ClosureStatus.VERIFIED)
        close(store, 5, 1, ClosureStatus.REJECTED)
        assert store.place(0)[1] == [0, 1, 2, 3, 4] and store.place(2)[1] == [5]
        close(store, 2, 0, ClosureStatus.REJECTED)
        assert store.place(0)[1] == [0, 1, 4] and store.place(1)[1] == [2, 3]


def test_adding_and_rejecting_take_no_longer_in_a_large_place() -> None:
    vector = np.eye(DIM, dtype=np.float32)[0]
    with KeyframeMap.open(None, MODEL, DIM) as store:
        add(store, vector, None)
        stamp_ns = store.keyframe(0).stamp_ns

        def grow(count: int) -> None:
            nonlocal stamp_ns
            for _ in range(count):
                stamp_ns += 5 * S
                store.add(Frame(stamp_ns, IMAGE), vector, 0)

        def steps(action: Callable[[], None]) -> int:
            """Return how many steps of 10 SQLite instructions an action takes."""
            taken = [0]

            def count() -> None:
                taken[0] += 1

            store._store.connection.set_progress_handler(count, 10)
            action()
            store._store.connection.set_progress_handler(None, 10)
            return taken[0]

        def reject() -> None:
            query = len(store) - 1
            close(store, query, 1, ClosureStatus.VERIFIED)
            close(store, query, 2, ClosureStatus.REJECTED)
            assert store.keyframe(query).place_id == 0

        grow(50)
        small = steps(lambda: grow(1)), steps(reject)
        grow(1000)
        large = steps(lambda: grow(1)), steps(reject)
        assert large[0] < 2 * small[0] and large[1] < 2 * small[1]
