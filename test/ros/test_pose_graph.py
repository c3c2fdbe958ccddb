# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The example backend: its graph alone, and over DDS with a stand-in for the node."""

import numpy as np
import pytest

from netvlad_msgs.msg import LoopClosure
from netvlad_msgs.srv import GetLoopClosures

for package in ('gtsam', 'evo'):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[backend]'")

from pose_graph_bench import (  # noqa: E402
    DRIFT_M,
    FIRST,
    LAST,
    ODOMETRY,
    TRUTH,
    Wire,
    backend,
    closure,
    driven,
    end_error_m,
    link,
)


@pytest.fixture
def graph():
    return driven(backend.PoseGraph(0.05, 0.02, 3.0))


def test_without_closures_the_path_is_the_odometry(graph):
    poses = [T for _, T in graph.trajectory()]
    assert np.allclose(poses, list(ODOMETRY.values()), atol=1e-3)
    assert DRIFT_M > 2.0


def test_closure_bends_the_path_back_once_and_until_it_is_taken_back(graph):
    graph.add_closure(link(FIRST, LAST))
    graph.update()
    assert end_error_m(graph.trajectory()) < 0.1
    graph.add_closure(link(FIRST, LAST))
    graph.update()
    graph.remove_closure(FIRST, LAST)
    graph.update()
    assert end_error_m(graph.trajectory()) == pytest.approx(DRIFT_M, rel=0.05)


def test_false_closure_loses_against_true_ones(graph):
    stamps = sorted(TRUTH)
    graph.add_closure(link(stamps[5], stamps[35], np.eye(4)))
    graph.update()
    for offset in range(5):
        graph.add_closure(link(stamps[offset], stamps[-1 - offset]))
    graph.update()
    errors_m = [np.linalg.norm(T[:3, 3] - TRUTH[ns][:3, 3]) for ns, T in graph.trajectory()]
    assert max(errors_m) < 0.1


def test_stamps_may_come_in_any_order():
    graph = backend.PoseGraph(0.05, 0.02, 3.0)
    for index in np.random.default_rng(0).permutation(len(ODOMETRY)):
        graph.add_pose(*list(ODOMETRY.items())[index])
    stamps_ns, poses = zip(*graph.trajectory(), strict=True)
    assert list(stamps_ns) == sorted(ODOMETRY)
    assert np.allclose(poses, list(ODOMETRY.values()), atol=1e-2)


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.close()


def test_closure_counts_when_it_is_verified_and_until_it_is_rejected(wire):
    wire.start()
    wire.publish_keyframes()
    wire.send(closure(FIRST, LAST, LoopClosure.STATUS_CANDIDATE))
    wire.spin_until(lambda: wire.error_m() < np.inf)
    assert wire.error_m() == pytest.approx(DRIFT_M, rel=1e-3)
    wire.send(closure(FIRST, LAST))
    wire.spin_until(lambda: wire.error_m() < 0.1)
    wire.send(closure(FIRST, LAST, LoopClosure.STATUS_REJECTED))
    wire.spin_until(lambda: wire.error_m() > 0.9 * DRIFT_M)


def test_backend_that_starts_late_asks_for_what_it_missed(wire):
    def answer(request, response):
        response.closures = [closure(FIRST, LAST)]
        return response

    wire.client.create_service(GetLoopClosures, 'vpr/get_loop_closures', answer)
    wire.publish_keyframes()
    wire.start()
    wire.spin_until(lambda: wire.error_m() < 0.1)
    assert len(wire.path.poses) == len(ODOMETRY)
