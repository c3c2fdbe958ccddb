# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The check that needs no calibration: whether matches fit one epipolar geometry.

A robust estimator can return no matrix together with a mask full of ones
(``cv2.findFundamentalMat`` does), so the matrix is looked at before any inlier is counted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import poselib

from netvlad_ros.types import FloatArray

MIN_MATCHES = 8
MAX_ITERATIONS = 1000


def epipolar_inliers(
    points_a_px: FloatArray, points_b_px: FloatArray, max_error_px: float, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Return which matches (N,) fit the fundamental matrix that most of them fit, maybe none.

    :param points_a_px: (N, 2) pixels; points_b_px likewise.
    """
    none = np.zeros(len(points_a_px), dtype=bool)
    if len(points_a_px) < MIN_MATCHES:
        return none
    options = {
        'max_epipolar_error': max_error_px,
        'max_iterations': MAX_ITERATIONS,
        'min_iterations': 100,
        'seed': seed,
    }
    F, info = poselib.estimate_fundamental(points_a_px, points_b_px, options, {})
    inliers = np.asarray(info['inliers'], dtype=bool)
    if not is_fundamental(F) or len(inliers) != len(none):
        return none
    return inliers


def is_fundamental(F: FloatArray | None) -> bool:
    """Tell whether an estimator returned a fundamental matrix: (3, 3), finite, of rank 2."""
    if F is None or np.shape(F) != (3, 3) or not np.isfinite(F).all():
        return False
    values = np.linalg.svd(np.asarray(F, dtype=np.float64), compute_uv=False)
    return bool(values[0] > 0.0 and values[1] > 1e-12 * values[0])
