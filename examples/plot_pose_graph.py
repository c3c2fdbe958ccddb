#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a corrected trajectory and the odometry with the truth of a simulated drive.

  python examples/plot_pose_graph.py drive corrected.tum pose_graph.png

prints the absolute trajectory errors as JSON and draws the three. ``pip install evo``.
"""

from __future__ import annotations

import json
from pathlib import Path
import sys

from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D
from evo.tools.file_interface import read_tum_trajectory_file
import numpy as np
from rosbags.highlevel import AnyReader

ODOMETRY, TRUTH = '/odom', '/ground_truth/odom'
MAX_GAP_S = 0.02
NS_PER_S = 1e9


def read_bag(path: Path) -> dict[str, PoseTrajectory3D]:
    """Return the trajectories of odometry and truth of a bag, by topic."""
    rows: dict[str, list[list[float]]] = {ODOMETRY: [], TRUTH: []}
    with AnyReader([path]) as reader:
        wanted = [c for c in reader.connections if c.topic in rows]
        for connection, _, data in reader.messages(connections=wanted):
            message = reader.deserialize(data, connection.msgtype)
            p, q = message.pose.pose.position, message.pose.pose.orientation
            stamp_s = message.header.stamp.sec + message.header.stamp.nanosec / NS_PER_S
            rows[connection.topic].append([stamp_s, p.x, p.y, p.z, q.w, q.x, q.y, q.z])
    tables = {topic: np.array(values) for topic, values in rows.items()}
    return {topic: PoseTrajectory3D(t[:, 1:4], t[:, 4:], t[:, 0]) for topic, t in tables.items()}


def aligned(truth: PoseTrajectory3D, estimate: PoseTrajectory3D) -> tuple[PoseTrajectory3D, float]:
    """Return the estimate aligned to the truth by a rigid motion, and its RMS error in metres."""
    reference, moved = sync.associate_trajectories(truth, estimate, max_diff=MAX_GAP_S)
    moved.align(reference)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((reference, moved))
    return moved, float(ape.get_statistic(metrics.StatisticsType.rmse))


def draw(
    path: str, truth: PoseTrajectory3D, estimates: dict[str, tuple[PoseTrajectory3D, float]]
) -> None:
    """Draw the truth and aligned estimates from above into an image file."""
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    axes.plot(*truth.positions_xyz[:, :2].T, color='0.75', linewidth=6, label='true')
    for (name, (estimate, error_m)), style in zip(
        estimates.items(), ({'color': 'tab:red', 'linestyle': '--'}, {'color': 'tab:blue'}),
        strict=True,
    ):
        xy = estimate.positions_xyz[:, :2]
        axes.plot(*xy.T, label=f'{name}, {error_m:.2f} m RMS', linewidth=1.5, **style)
    axes.set_aspect('equal')
    axes.set_xlabel('x [m]')
    axes.set_ylabel('y [m]')
    axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110, bbox_inches='tight')


def main(bag: str, trajectory: str, picture: str) -> None:
    """Compare, draw and print."""
    recorded = read_bag(Path(bag))
    corrected = read_tum_trajectory_file(trajectory)
    # The same stamps for both, or a stop would weigh more in one.
    _, odometry = sync.associate_trajectories(corrected, recorded[ODOMETRY], max_diff=MAX_GAP_S)
    estimates = {
        'odometry': aligned(recorded[TRUTH], odometry),
        'with loop closures': aligned(recorded[TRUTH], corrected),
    }
    draw(picture, recorded[TRUTH], estimates)
    print(json.dumps({f'{name} [m]': error_m for name, (_, error_m) in estimates.items()}))


if __name__ == '__main__':
    main(*sys.argv[1:4])
