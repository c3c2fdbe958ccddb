# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A map that is open is copied whole, also one that lives in memory only."""

import numpy as np
import pytest

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.types import Frame, LoopClosure

DIM = 16


def test_a_map_in_memory_is_copied_with_its_ids_places_and_closures(tmp_path):
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0].astype(np.float32)
    picture = np.zeros((2, 2, 3), np.uint8)
    with KeyframeMap.open(None, 'net@1', DIM) as source:
        source.begin_session('monday')
        for stamp_ns, vector in enumerate(vectors[:8]):
            source.add(Frame(stamp_ns, picture), vector, 0 if stamp_ns == 7 else None, b'jpeg')
        closure = LoopClosure(source.keyframe(7), source.keyframe(0), 0.9, 'net@1')
        source.add_closures([closure])
        assert source.path is None
        assert source.save_copy(tmp_path / 'copy') == 8
        with pytest.raises(MapError, match='exists'):
            source.save_copy(tmp_path / 'copy')
        before = source.keyframes()

    with KeyframeMap.open(tmp_path / 'copy', 'net@1', DIM) as copy:
        assert copy.path == tmp_path / 'copy'
        assert copy.keyframes() == before
        np.testing.assert_array_equal(copy.descriptors(range(8)), vectors[:8])
        assert [c.match.id for c in copy.closures()] == [0]
        assert copy.thumbnail(3) == b'jpeg'
        assert copy.search(vectors[5], 1)[0].keyframe_id == 5
