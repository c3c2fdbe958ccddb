# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From the pose between two cameras to the pose between two robots, with its covariance.

A LoopClosure measures between optical frames; pose graphs link the robot's base at two stamps.
Covariances follow geometry_msgs/PoseWithCovariance: (x, y, z, rotation about fixed X, Y, Z) in
m^2 and rad^2, so that a pose is t + d and exp(w) R for an error (d, w).
"""

from __future__ import annotations

import numpy as np

from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.geometry.covariance import skew
from netvlad_ros.types import FloatArray


def between_bases(
    T_match_query: FloatArray,
    covariance: FloatArray,
    T_base_match: FloatArray,
    T_base_query: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the pose (4, 4) of the base at the query in the base at the match.

    :param T_match_query: (4, 4) of the query camera in the match camera's optical frame.
    :param covariance: (6, 6) of it.
    :param T_base_match: (4, 4) of the match camera's optical frame in the robot's base.
    :param T_base_query: (4, 4) of the query camera's.
    :returns: the pose and its covariance (6, 6), whose axes are those of the base at the match.
    """
    T_query_base = inverse(T_base_query)
    jacobian = np.zeros((6, 6))
    R = T_base_match[:3, :3]
    lever = T_match_query[:3, :3] @ T_query_base[:3, 3]
    jacobian[:3, :3] = jacobian[3:, 3:] = R
    jacobian[:3, 3:] = -R @ skew(lever)
    return T_base_match @ T_match_query @ T_query_base, jacobian @ covariance @ jacobian.T


def body_covariance(T_a_b: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the covariance (6, 6) of (x, y, z, rotation) along the axes of frame b.

    Optimisers measure the error of a link there: T_a_b times a small motion in b.
    """
    jacobian = np.kron(np.eye(2), T_a_b[:3, :3].T)
    return np.asarray(jacobian @ covariance @ jacobian.T)
