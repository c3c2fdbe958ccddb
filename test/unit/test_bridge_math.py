# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From the pose between cameras to that between robots, with its covariance, without ROS."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from netvlad_ros.geometry import inverse
from netvlad_ros.ros.bridges.base_frame import between_bases, body_covariance


def random_pose(generator: np.random.Generator) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=int(generator.integers(1 << 31))).as_matrix()
    T[:3, 3] = generator.uniform(-3.0, 3.0, 3)
    return T


def random_covariance(generator: np.random.Generator) -> np.ndarray:
    A = generator.normal(size=(6, 6))
    return 1e-6 * (A @ A.T + np.eye(6))


def moved(T: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return T (N, 4, 4) with errors (N, 6): t + d and exp(w) R."""
    out = np.broadcast_to(T, (len(errors), 4, 4)).copy()
    out[:, :3, 3] += errors[:, :3]
    out[:, :3, :3] = Rotation.from_rotvec(errors[:, 3:]).as_matrix() @ T[:3, :3]
    return out


def test_camera_looking_ahead_sees_the_robot_move_ahead():
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T_base_camera[:3, 3] = [0.2, 0.0, 0.9]
    T_match_query = np.eye(4)
    T_match_query[:3, 3] = [0.0, 0.0, 2.0]
    T, covariance = between_bases(
        T_match_query, np.diag([1.0, 2, 3, 4, 5, 6]), T_base_camera, T_base_camera
    )
    assert np.allclose(T[:3, 3], [2.0, 0.0, 0.0]) and np.allclose(T[:3, :3], np.eye(3))
    # Depth of the image is ahead of the robot, a turn about its vertical is a turn of the robot.
    assert np.allclose(np.diag(covariance)[3:], [6.0, 4.0, 5.0])
    assert covariance[0, 0] == pytest.approx(3.0 + 0.9**2 * 4.0)


def test_pose_between_bases_follows_from_the_cameras_of_both():
    generator = np.random.default_rng(0)
    T_world_match, T_world_query, B_match, B_query = (random_pose(generator) for _ in range(4))
    T_match_query = inverse(T_world_match @ B_match) @ T_world_query @ B_query
    T, _ = between_bases(T_match_query, np.eye(6), B_match, B_query)
    assert np.allclose(T, inverse(T_world_match) @ T_world_query)


def test_covariances_are_those_of_sampled_errors():
    generator = np.random.default_rng(1)
    T, B_match, B_query = (random_pose(generator) for _ in range(3))
    covariance = random_covariance(generator)
    errors = generator.multivariate_normal(np.zeros(6), covariance, size=100_000)
    T_base, base_covariance = between_bases(T, covariance, B_match, B_query)
    samples = B_match @ moved(T, errors) @ inverse(B_query)

    rotated = samples[:, :3, :3] @ T_base[:3, :3].T
    turns = Rotation.from_matrix(rotated).as_rotvec()
    sampled = np.cov(np.hstack([samples[:, :3, 3] - T_base[:3, 3], turns]).T)
    assert np.allclose(sampled, base_covariance, atol=0.02 * np.abs(base_covariance).max())

    local = inverse(T_base) @ samples
    turns = Rotation.from_matrix(local[:, :3, :3]).as_rotvec()
    sampled = np.cov(np.hstack([local[:, :3, 3], turns]).T)
    body = body_covariance(T_base, base_covariance)
    assert np.allclose(sampled, body, atol=0.02 * np.abs(body).max())
