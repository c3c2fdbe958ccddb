# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mapping runs that the crash tests start as processes of their own and kill.

python mapping_runs.py kill FOLDER KILLS SEED      fork runs on one map and kill each with SIGKILL
python mapping_runs.py run FOLDER COUNT DURABILITY one run; acknowledged ids go to FOLDER.acks
python mapping_runs.py search FOLDER ID normal     find a keyframe, read-only
"""

from __future__ import annotations

import os
from pathlib import Path
import random
import select
import signal
import sys
import time

import numpy as np

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap, MapConfig, blocks, maintenance
from netvlad_ros.keyframes.verify import verify
from netvlad_ros.types import ClosureStatus, Frame, LoopClosure

MODEL, DIM = 'test@0123456789ab', 32
# Blocks of 64 rows and a busy maintenance thread put more happenings into a short run.
blocks.BLOCK_BYTES = 64 * DIM * 4
maintenance._PAUSE_S = 0.002


def vector_of(keyframe_id: int) -> np.ndarray:
    vector = np.random.default_rng(keyframe_id).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def jpeg_of(keyframe_id: int) -> bytes:
    return (b'%08d' % keyframe_id) * (keyframe_id % 300)


def map_into(folder: Path, count: int, durability: str, acks: int) -> None:
    """Add keyframes and write each id to ``acks`` once it is promised to be stored."""
    with KeyframeMap.open(folder, MODEL, DIM, MapConfig(durability=durability)) as store:
        store.begin_session()
        image = np.zeros((2, 2, 3), np.uint8)
        for _ in range(count):
            i = len(store)
            place = i % 50 if i >= 50 else None
            T = np.eye(4)
            keyframe, _ = store.add(
                Frame(i * 10**9, image, T_odom_base=T), vector_of(i), place, jpeg_of(i)
            )
            if place is not None:
                status = (ClosureStatus.VERIFIED, ClosureStatus.REJECTED)[i % 2]
                match = store.keyframe(i - 50)
                store.add_closures([LoopClosure(keyframe, match, 0.9, MODEL, status=status)])
            os.write(acks, b'%d\n' % keyframe.id)


def check(folder: Path, acknowledged: int) -> int:
    """Fail unless the first ``acknowledged`` keyframes are sound; return how many there are."""
    report = verify(folder)
    assert not report.faults, [str(fault) for fault in report.faults]
    with KeyframeMap.open(folder, MODEL, DIM) as store:
        assert len(store) >= acknowledged, (len(store), acknowledged)
        assert [keyframe.id for keyframe in store.keyframes()] == list(range(len(store)))
        ids = range(max(0, acknowledged - 20), len(store))
        expected = np.array([vector_of(i) for i in ids]).reshape(-1, DIM)
        np.testing.assert_array_equal(store.descriptors(ids), expected)
        for i in ids:
            assert store.thumbnail(i) == jpeg_of(i)
        return len(store)


def kill_runs(folder: Path, kills: int, seed: int) -> None:
    rng, known = random.Random(seed), 0
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            map_into(folder, 10**9, 'normal', writing)
        os.close(writing)
        select.select([reading], [], [], 30.0)  # the run has begun to store
        time.sleep(rng.random() * 0.04)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        received = b''
        while chunk := os.read(reading, 1 << 16):
            received += chunk
        os.close(reading)
        lines = received.split(b'\n')[:-1]
        known = max(known, int(lines[-1]) + 1 if lines else 0)
        known = check(folder, known)
    print(known)


if __name__ == '__main__':
    action, target, number, last = sys.argv[1:]
    if action == 'kill':
        kill_runs(Path(target), int(number), int(last))
    elif action == 'search':
        with KeyframeMap.open(target, MODEL, DIM, read_only=True) as opened:
            print(opened.search(vector_of(int(number)), 1)[0].keyframe_id)
    else:
        try:
            acks_fd = os.open(f'{target}.acks', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            map_into(Path(target), int(number), last, acks_fd)
        except MapError as error:
            print(error)
            sys.exit(3)
