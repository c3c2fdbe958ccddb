# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Node, player and example backend as processes, on a drive whose odometry drifts."""

import signal
import sys

import numpy as np
import pytest
from test_processes import MODEL, NETVLAD, NODE

from netvlad_ros.ros.conversions import (
    pose_from_msg,
    pose_to_msg,
    stamp_ns_from_msg,
    stamp_ns_to_msg,
)
from netvlad_ros.simulation.drive import DriveConfig, simulate_drive
from netvlad_ros.simulation.renderer import RenderError

for package in ('gtsam', 'evo'):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[backend]'")

from evo.core.trajectory import PoseTrajectory3D  # noqa: E402
from evo.tools.file_interface import read_tum_trajectory_file  # noqa: E402
from pose_graph_bench import EXAMPLES, FIRST, LAST, MOUNTING, S, Wire, closure, load  # noqa: E402

plot = load('plot_pose_graph')
# Two laps of a small town in 52 s; of the first eight seeds the one that drifts most.
DRIVE = DriveConfig(seed=4, length_m=40.0, laps=2.0, reverse=False, rate_hz=2.0, drift=3.0)
# A machine of two cores keeps up with twice the speed of the drive.
SETTINGS = {
    'image_transport': 'compressed',
    'descriptor.model': MODEL,
    'descriptor.runtime': 'torch',
    'verification.max_candidates': 3,
    'qos_overrides./image/compressed.subscription.reliability': 'reliable',
    'qos_overrides./odom.subscription.reliability': 'reliable',
}


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.close()


def trajectory_of(path):
    stamps_s = np.array([stamp_ns_from_msg(stamped.header.stamp) / S for stamped in path.poses])
    poses = [pose_from_msg(stamped.pose) for stamped in path.poses]
    return PoseTrajectory3D(poses_se3=poses, timestamps=stamps_s)


def false_closure(odometry):
    """Return a closure that takes the far side of the town for the near one."""
    message = closure(FIRST, LAST, T_match_query=np.eye(4))
    for side, share in (('match', 0.11), ('query', 0.31)):
        index = int(share * odometry.num_poses)
        setattr(message, f'{side}_stamp', stamp_ns_to_msg(round(odometry.timestamps[index] * S)))
        setattr(message, f'{side}_odom_pose', pose_to_msg(odometry.poses_se3[index]))
    return message


@pytest.mark.slow
def test_closures_cut_the_error_of_a_drive_to_a_third(wire, start, tmp_path):
    bag, file = tmp_path / 'drive', tmp_path / 'corrected.tum'
    try:
        simulate_drive(bag, DRIVE)
    except RenderError as error:
        pytest.skip(str(error))
    recorded = plot.read_bag(bag)
    odometry, truth = recorded[plot.ODOMETRY], recorded[plot.TRUTH]
    _, error_m = plot.aligned(truth, odometry)
    arguments = [word for name, value in SETTINGS.items() for word in ('-p', f'{name}:={value}')]
    node = start([*NODE, '--ros-args', *arguments])
    process = start([
        sys.executable, str(EXAMPLES / 'pose_graph_backend.py'), '--ros-args',
        '-p', f'trajectory_file:={file}', '-p', f'base_camera_pose:={list(map(float, MOUNTING))}',
    ])  # fmt: skip
    node.wait_for('model ')
    topics = ('/image/compressed', '/odom')
    player = start([*NETVLAD, 'play', str(bag), '--rate', '2', '--wait-for', *topics])
    wire.spin_until(lambda: player.process.poll() is not None)
    assert player.process.wait() == 0, player.output

    # The node verifies what is left, the backend publishes once more.
    wire.spin_for(3.0)
    corrected_m = plot.aligned(truth, trajectory_of(wire.path))[1]
    assert corrected_m < error_m / 3
    planted = false_closure(odometry)
    wire.send(planted)
    wire.spin_until(lambda: planted.query_stamp in [p.header.stamp for p in wire.path.poses])
    wire.spin_for(2.0)
    planted_m = plot.aligned(truth, trajectory_of(wire.path))[1]
    assert planted_m < error_m / 3
    print(f'{error_m:.3f} m, with closures {corrected_m:.3f} m, one planted {planted_m:.3f} m')

    assert process.end(signal.SIGINT, signal.SIGINT) == 0, process.output
    assert node.end(signal.SIGTERM) == 0, node.output
    assert 'Traceback' not in process.output + node.output
    assert plot.aligned(truth, read_tum_trajectory_file(file))[1] < error_m / 3
