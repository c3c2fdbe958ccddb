#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A SLAM backend in one file: odometry and loop closures in, the corrected path out.

The graph has a node for every half metre of odometry and one for each end of a closure. Only
closures that geometry VERIFIED with a METRIC pose become links, with the covariance of the
message; a robust loss keeps a wrong one from bending the map. ``pip install gtsam evo``, then

  netvlad simulate drive --drift 3
  ros2 run netvlad_ros vpr_node --ros-args -p image_transport:=compressed
  python examples/pose_graph_backend.py --ros-args -p trajectory_file:=corrected.tum
  netvlad play drive --rate 0.5
  python examples/plot_pose_graph.py drive corrected.tum pose_graph.png

Topics: in ``odom``, ``loop_closures``, ``keyframes``, ``/tf_static``; out ``corrected_path``.
Where tf2_msgs is not installed, ``base_camera_pose`` says where the camera is; for the drive
``-p base_camera_pose:='[0.2, 0.0, 0.9, -0.4777, 0.4777, -0.5213, 0.5213]'``.
"""

from __future__ import annotations

from bisect import bisect, insort
from pathlib import Path as File
import signal
import sys
from typing import Optional

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
import gtsam
from nav_msgs.msg import Odometry, Path
import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_msgs.srv import GetLoopClosures
from netvlad_ros.geometry import xyz_quat_from_pose
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges.base_frame import body_covariance
from netvlad_ros.ros.bridges.links import Link, is_measured, link_from_msg
from netvlad_ros.ros.camera_mounting import CameraMounting
from netvlad_ros.ros.conversions import (
    header_to_msg,
    pose_from_msg,
    pose_to_msg,
    stamp_ns_from_msg,
)

NS_PER_S = 1e9
PERIOD_S = 1.0
ROTATION_FIRST = np.ix_([3, 4, 5, 0, 1, 2], [3, 4, 5, 0, 1, 2])  # GTSAM's order of a pose's error
EXTRA_UPDATES = 5  # a robust loss needs a few steps after each closure


class PoseGraph:
    """Poses of the robot's base, keyed by stamp [ns], linked by odometry and closures (iSAM2).

    :param noise_m: error of the odometry's position, in metres per root metre travelled.
    :param noise_rad: error of its heading, in radians per root metre travelled.
    :param tolerance: error of a closure, in standard deviations, from which on the robust loss
        doubts it.
    """

    def __init__(self, noise_m: float, noise_rad: float, tolerance: float) -> None:
        parameters = gtsam.ISAM2Params()
        parameters.setRelinearizeThreshold(0.001)
        parameters.relinearizeSkip = 1
        self._isam = gtsam.ISAM2(parameters)
        self._sigmas = np.array([noise_rad] * 3 + [noise_m] * 3)
        self._loss = gtsam.noiseModel.mEstimator.Cauchy.Create(tolerance)
        self._odometry: dict[int, gtsam.Pose3] = {}
        self._stamps_ns: list[int] = []
        self._closures: dict[tuple[int, int], int] = {}  # pair -> index of its factor
        self._clear()

    def _clear(self) -> None:
        self._factors, self._values = gtsam.NonlinearFactorGraph(), gtsam.Values()
        self._added: dict[tuple[int, int], int] = {}  # pair -> place among the new factors
        self._removed: list[int] = []

    def add_pose(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """Add a node and hang it by odometry on the node that is nearest in time."""
        if stamp_ns in self._odometry:
            return
        pose = gtsam.Pose3(T_odom_base)
        index = bisect(self._stamps_ns, stamp_ns)
        neighbours = self._stamps_ns[max(0, index - 1):index + 1]
        if neighbours:
            nearest = min(neighbours, key=lambda other: abs(other - stamp_ns))
            step = self._odometry[nearest].between(pose)
            travelled_m = max(0.01, float(np.linalg.norm(step.translation())))
            noise = gtsam.noiseModel.Diagonal.Sigmas(self._sigmas * np.sqrt(travelled_m))
            self._factors.add(gtsam.BetweenFactorPose3(nearest, stamp_ns, step, noise))
            self._values.insert(stamp_ns, self.pose(nearest).compose(step))
        else:
            anchor = gtsam.noiseModel.Isotropic.Sigma(6, 1e-3)
            self._factors.add(gtsam.PriorFactorPose3(stamp_ns, pose, anchor))
            self._values.insert(stamp_ns, pose)
        self._odometry[stamp_ns] = pose
        insort(self._stamps_ns, stamp_ns)

    def add_closure(self, link: Link) -> None:
        """Link two nodes by a measured pose; a pair is linked once."""
        pair = (link.match_ns, link.query_ns)
        if pair in self._closures or pair in self._added:
            return
        body = body_covariance(link.T_match_query, link.covariance)
        gaussian = gtsam.noiseModel.Gaussian.Covariance(body[ROTATION_FIRST])
        noise = gtsam.noiseModel.Robust.Create(self._loss, gaussian)
        self._added[pair] = self._factors.size()
        pose = gtsam.Pose3(link.T_match_query)
        self._factors.add(gtsam.BetweenFactorPose3(*pair, pose, noise))

    def remove_closure(self, match_ns: int, query_ns: int) -> None:
        """Take a link back."""
        if (match_ns, query_ns) in self._added:
            self.update()
        index = self._closures.pop((match_ns, query_ns), None)
        if index is not None:
            self._removed.append(index)

    def update(self) -> None:
        """Optimise with what was added and removed since the last time."""
        result = self._isam.update(self._factors, self._values, self._removed)
        indices = result.getNewFactorsIndices()
        self._closures.update({pair: indices[at] for pair, at in self._added.items()})
        if self._added or self._removed:
            for _ in range(EXTRA_UPDATES):
                self._isam.update()
        self._clear()

    def pose(self, stamp_ns: int) -> gtsam.Pose3:
        """Return the present estimate of a node."""
        if self._values.exists(stamp_ns):
            return self._values.atPose3(stamp_ns)
        return self._isam.calculateEstimatePose3(stamp_ns)

    def trajectory(self) -> list[tuple[int, np.ndarray]]:
        """Optimise; return stamp [ns] and T_map_base (4, 4) of every node, in order of time.

        The first pose is that of the odometry, whatever node the graph is anchored at.
        """
        if not self._stamps_ns:
            return []
        self.update()
        estimate = self._isam.calculateEstimate()
        first_ns = self._stamps_ns[0]
        T = self._odometry[first_ns].compose(estimate.atPose3(first_ns).inverse())
        return [(ns, T.compose(estimate.atPose3(ns)).matrix()) for ns in self._stamps_ns]


class PoseGraphBackend(Node):
    """Feeds the graph from topics, and optimises and publishes the path once a second."""

    def __init__(self, **options: object) -> None:
        super().__init__('pose_graph_backend', **options)
        self._frame_id = self.declare_parameter('map_frame_id', 'map').value
        self._spacing_m = self.declare_parameter('node_distance_m', 0.5).value
        self._file = self.declare_parameter('trajectory_file', '').value
        self._graph = PoseGraph(
            self.declare_parameter('odometry_noise_m', 0.05).value,
            self.declare_parameter('odometry_noise_rad', 0.02).value,
            self.declare_parameter('closure_tolerance', 3.0).value,
        )
        self._mounting = CameraMounting(self)
        self._last_xyz = np.full(3, np.inf)
        self._waiting: list[LoopClosure] = []
        self._first_stamp: Optional[Time] = None
        self._history_wanted = True
        self._path = self.create_publisher(Path, 'corrected_path', qos.LATCHED_QOS)
        self.create_subscription(Odometry, 'odom', self._on_odometry, qos.ODOMETRY_QOS)
        self.create_subscription(
            LoopClosureArray, 'loop_closures',
            lambda message: self._waiting.extend(message.closures), qos.RESULT_QOS,
        )
        # What happened before this node started: keyframes come latched, closures when asked for.
        self.create_subscription(Path, 'keyframes', self._on_keyframes, qos.LATCHED_QOS)
        self._history = self.create_client(GetLoopClosures, 'vpr/get_loop_closures')
        self.create_timer(PERIOD_S, self.update, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_odometry(self, message: Odometry) -> None:
        T_odom_base = pose_from_msg(message.pose.pose)
        if T_odom_base is None:
            return
        if np.linalg.norm(T_odom_base[:3, 3] - self._last_xyz) >= self._spacing_m:
            self._last_xyz = T_odom_base[:3, 3]
            self._graph.add_pose(stamp_ns_from_msg(message.header.stamp), T_odom_base)

    def _on_keyframes(self, message: Path) -> None:
        if self._first_stamp is not None or not message.poses:
            return  # odometry and closures are heard since then
        self._first_stamp = message.poses[0].header.stamp
        # Newest first: each pose hangs on its neighbour in time, back from the first odometry.
        for stamped in reversed(message.poses):
            stamp_ns = stamp_ns_from_msg(stamped.header.stamp)
            self._graph.add_pose(stamp_ns, pose_from_msg(stamped.pose))

    def _take(self, closure: LoopClosure) -> bool:
        """Put a closure into the graph; False if the camera's mounting is not known yet."""
        if closure.status == LoopClosure.STATUS_REJECTED:
            stamps = (closure.match_stamp, closure.query_stamp)
            self._graph.remove_closure(*map(stamp_ns_from_msg, stamps))
        if not is_measured(closure):
            return True
        link = link_from_msg(closure, self._mounting)
        if link is not None and link.T_odom_query is not None and link.T_odom_match is not None:
            self._graph.add_pose(link.query_ns, link.T_odom_query)
            self._graph.add_pose(link.match_ns, link.T_odom_match)
            self._graph.add_closure(link)
        return link is not None

    def update(self) -> None:
        """Take what has arrived, optimise and publish."""
        ready = self._first_stamp is not None and self._history.service_is_ready()
        if self._history_wanted and ready:
            self._history_wanted = False
            # Earlier runs in the same map have another odometry frame.
            answer = self._history.call_async(GetLoopClosures.Request(since=self._first_stamp))
            answer.add_done_callback(lambda done: self._waiting.extend(done.result().closures))
        self._waiting = [closure for closure in self._waiting if not self._take(closure)]
        trajectory = self._graph.trajectory()
        if trajectory:
            header = header_to_msg(trajectory[-1][0], self._frame_id)
            poses = [
                PoseStamped(header=header_to_msg(stamp_ns, self._frame_id), pose=pose_to_msg(T))
                for stamp_ns, T in trajectory
            ]
            self._path.publish(Path(header=header, poses=poses))

    def save(self) -> None:
        """Write the trajectory in the format of TUM, if a file is wanted."""
        if not self._file:
            return
        with File(self._file).open('w', encoding='utf-8') as file:
            for stamp_ns, T in self._graph.trajectory():
                xyz, quat_xyzw = xyz_quat_from_pose(T)
                numbers = ' '.join(f'{value:.6f}' for value in (*xyz, *quat_xyzw))
                file.write(f'{stamp_ns / NS_PER_S:.6f} {numbers}\n')


def main() -> int:
    """Run until SIGINT or SIGTERM."""
    # A second Ctrl-C, which `ros2 launch` sends on top of the terminal's, must not lose the file.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    rclpy.init(signal_handler_options=SignalHandlerOptions.ALL)
    try:
        backend = PoseGraphBackend()
        try:
            rclpy.spin(backend)
        finally:
            backend.save()
    except (ExternalShutdownException, KeyboardInterrupt):
        pass
    except RuntimeError:
        if rclpy.ok():  # otherwise the signal came in the middle of a call
            raise
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
