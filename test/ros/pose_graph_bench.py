# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The example backend, a circular drive for it, and a client that feeds it over DDS."""

import importlib.util
from pathlib import Path
import sys
import time

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as NavPath
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from scipy.spatial.transform import Rotation

from netvlad_msgs.msg import LoopClosure, LoopClosureArray
from netvlad_ros.geometry import inverse
from netvlad_ros.ros import qos
from netvlad_ros.ros.bridges.links import Link
from netvlad_ros.ros.conversions import (
    header_to_msg,
    pose_from_msg,
    pose_to_msg,
    stamp_ns_from_msg,
    stamp_ns_to_msg,
)
from netvlad_ros.simulation.camera import make_camera

EXAMPLES = Path(__file__).resolve().parents[2] / 'examples'
S = 1_000_000_000
T_BASE_CAMERA = make_camera().T_base_camera
MOUNTING = [*T_BASE_CAMERA[:3, 3], *Rotation.from_matrix(T_BASE_CAMERA[:3, :3]).as_quat()]
TIMEOUT_S = 90.0


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


backend = load('pose_graph_backend')


def circle(drift_rad_per_s):
    """Return T_world_base by stamp: once around a circle of 5 m in 60 s, turning too far."""
    poses, T = {}, np.eye(4)
    step = np.eye(4)
    step[0, 3] = 2 * np.pi * 5.0 / 60
    turn = 2 * np.pi / 60 + drift_rad_per_s
    step[:3, :3] = Rotation.from_euler('z', turn).as_matrix()
    for second in range(61):
        poses[(100 + second) * S] = T
        T = T @ step
    return poses


TRUTH, ODOMETRY = circle(0.0), circle(0.01)
FIRST, LAST = min(TRUTH), max(TRUTH)


def link(match_ns, query_ns, T_match_query=None):
    true = inverse(TRUTH[match_ns]) @ TRUTH[query_ns]
    T = true if T_match_query is None else T_match_query
    odometry = (ODOMETRY[match_ns], ODOMETRY[query_ns])
    return Link(match_ns, query_ns, T, 1e-4 * np.eye(6), *odometry)


def closure(match_ns, query_ns, status=LoopClosure.STATUS_VERIFIED, T_match_query=None):
    """Return a metric closure; ``T_match_query`` is between the bases, by default the truth."""
    item = link(match_ns, query_ns, T_match_query)
    message = LoopClosure(
        header=header_to_msg(query_ns, 'camera_optical'),
        match_stamp=stamp_ns_to_msg(match_ns),
        query_stamp=stamp_ns_to_msg(query_ns),
        match_camera='camera_optical',
        status=status,
        transform_kind=LoopClosure.TRANSFORM_METRIC,
        match_odom_pose=pose_to_msg(item.T_odom_match),
        query_odom_pose=pose_to_msg(item.T_odom_query),
    )
    T = inverse(T_BASE_CAMERA) @ item.T_match_query @ T_BASE_CAMERA
    message.match_t_query.pose = pose_to_msg(T)
    message.match_t_query.covariance = item.covariance.ravel()
    return message


def driven(graph):
    for stamp_ns, T in ODOMETRY.items():
        graph.add_pose(stamp_ns, T)
    graph.update()
    return graph


def end_error_m(trajectory):
    return float(np.linalg.norm(dict(trajectory)[LAST][:3, 3] - TRUTH[LAST][:3, 3]))


DRIFT_M = end_error_m(ODOMETRY.items())


class Wire:
    """The backend over DDS, and a client that stands in for the place-recognition node."""

    def __init__(self):
        self.context = rclpy.context.Context()
        rclpy.init(context=self.context)
        self.client = rclpy.create_node('client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.closures = self.client.create_publisher(
            LoopClosureArray, 'loop_closures', qos.RESULT_QOS
        )
        self.keyframes = self.client.create_publisher(NavPath, 'keyframes', qos.LATCHED_QOS)
        self.path = None
        self.backend = None
        self.client.create_subscription(
            NavPath, 'corrected_path', self._on_path, qos.LATCHED_QOS
        )

    def _on_path(self, message):
        self.path = message

    def start(self):
        """Start the backend in this process."""
        mounting = rclpy.parameter.Parameter('base_camera_pose', value=MOUNTING)
        self.backend = backend.PoseGraphBackend(
            context=self.context, parameter_overrides=[mounting]
        )
        self.executor.add_node(self.backend)
        self.spin_until(lambda: self.closures.get_subscription_count() == 1)

    def publish_keyframes(self):
        """Publish what the robot saw before, latched."""
        poses = [
            PoseStamped(header=header_to_msg(stamp_ns, 'odom'), pose=pose_to_msg(T))
            for stamp_ns, T in ODOMETRY.items()
        ]
        self.keyframes.publish(NavPath(poses=poses))

    def send(self, message):
        """Publish one closure."""
        self.closures.publish(LoopClosureArray(closures=[message]))

    def error_m(self):
        """Return the error of the last pose, infinite until there is one."""
        poses = self.path.poses if self.path else []
        ends = [p.pose for p in poses if stamp_ns_from_msg(p.header.stamp) == LAST]
        return end_error_m([(LAST, pose_from_msg(ends[0]))]) if ends else np.inf

    def spin_until(self, done):
        """Spin until a condition holds."""
        end_s = time.monotonic() + TIMEOUT_S
        while not done():
            assert time.monotonic() < end_s, f'error {self.error_m()} m'
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, duration_s):
        """Spin for a while."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=0.05)

    def close(self):
        """Stop everything."""
        self.executor.shutdown()
        if self.backend is not None:
            self.backend.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown(context=self.context)
