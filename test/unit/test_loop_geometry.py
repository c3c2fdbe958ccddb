# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras, matches, poses and covariances against scenes whose truth is known."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from netvlad_ros.errors import InputError
from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.geometry import bundle
from netvlad_ros.loop_closure.geometry.camera_model import project, undistort
from netvlad_ros.loop_closure.geometry.covariance import inverse_covariance, perturbed, pose_error
from netvlad_ros.loop_closure.geometry.features import Features, Orb, RootSift
from netvlad_ros.loop_closure.geometry.fundamental import epipolar_inliers, is_fundamental
from netvlad_ros.loop_closure.geometry.landmarks import (
    Sighting,
    refined_motion,
    sighting,
    triangulate,
)
from netvlad_ros.loop_closure.geometry.matching import match_mutual
from netvlad_ros.loop_closure.geometry.pnp import absolute_pose, back_project
from netvlad_ros.loop_closure.geometry.relative_pose import relative_pose
from netvlad_ros.types import Camera, FloatArray, TransformKind

FOCAL_PX = 500.0
ERROR_PX = 1.5


def pose(x: float, y: float, z: float, *rotvec_deg: float) -> FloatArray:
    out = np.eye(4)
    out[:3, 3] = x, y, z
    out[:3, :3] = Rotation.from_rotvec(np.radians(rotvec_deg or (0, 0, 0))).as_matrix()
    return out


def scene(rng: np.random.Generator, count: int = 150, flat: bool = False) -> FloatArray:
    """Return points (N, 3) that a camera at the origin sees."""
    rays = rng.uniform([-0.6, -0.45], [0.6, 0.45], (count, 2))
    depth = np.full(count, 5.0) if flat else rng.uniform(3.0, 12.0, count)
    return np.column_stack([rays * depth[:, None], depth])


def seen(
    points: FloatArray, T: FloatArray, rng: np.random.Generator, noise_px: float
) -> FloatArray:
    """Return noisy rays (N, 2) of points in a camera that T maps them into."""
    there = points @ T[:3, :3].T + T[:3, 3]
    rays = there[:, :2] / there[:, 2:]
    return rays + rng.normal(0.0, noise_px / FOCAL_PX, rays.shape)


def angle_deg(a: FloatArray, b: FloatArray) -> float:
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('', ()),
        ('plumb_bob', (0.26, -0.95, -0.005, 0.003, 1.16)),
        ('rational_polynomial', (0.4, -0.2, 0.001, -0.001, 0.02, 0.7, -0.1, 0.05)),
        ('equidistant', (0.02, -0.01, 0.004, -0.001)),
    ],
)
def test_every_distortion_model_returns_the_ray_it_projected(model, coefficients):
    camera = Camera(
        K=np.array([[517.0, 0, 318], [0, 516, 255], [0, 0, 1]]), size_wh=(640, 480),
        distortion_model=model, distortion=np.array(coefficients),
    )  # fmt: skip
    rays = np.random.default_rng(1).uniform(-0.5, 0.5, (200, 2))
    found, valid = undistort(project(np.column_stack([rays, np.ones(200)]), camera), camera)
    assert valid.all()
    np.testing.assert_allclose(found, rays, atol=1e-6)


def test_unknown_distortion_and_missing_intrinsics_are_refused():
    camera = Camera(K=np.eye(3) * 500, distortion_model='thin_prism')
    with pytest.raises(InputError, match='thin_prism'):
        undistort(np.zeros((1, 2)), camera)
    with pytest.raises(InputError, match='CameraInfo'):
        undistort(np.zeros((1, 2)), Camera(K=np.zeros((3, 3))))


def test_points_outside_the_field_of_the_model_are_not_valid():
    camera = Camera(
        K=np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]]),
        distortion_model='plumb_bob', distortion=np.array([-0.4, 0, 0, 0, 0]),
    )  # fmt: skip
    _, valid = undistort([[320.0, 240.0], [620.0, 240.0]], camera)
    assert valid.tolist() == [True, False]


@pytest.mark.parametrize('detector', [RootSift, Orb])
@pytest.mark.parametrize('width_px', [200, 400, 800])
def test_points_turn_with_the_picture(detector, width_px):
    """OpenCV puts points right and below their place, ORB by up to 1.3 pixels: poses suffer."""
    rng, height_px = np.random.default_rng(0), 3 * width_px // 4
    image = np.full((height_px, width_px), 90, np.uint8)
    for x, y, w, h, value in rng.integers(
        [0, 0, 10, 10, 0], [width_px, height_px, 60, 60, 255], (300, 5)
    ):
        cv2.rectangle(image, (x, y), (x + w, y + h), int(value), -1)
    image = np.repeat(cv2.GaussianBlur(image, (0, 0), 1.0)[..., None], 3, axis=2)
    extract = detector(800, 320, 400).extract
    pictures = (image, np.ascontiguousarray(image[::-1, ::-1]))
    points, turned = (extract(picture).points_px for picture in pictures)
    back = np.array([width_px - 1, height_px - 1]) - turned
    apart = np.linalg.norm(points[:, None] - back, axis=2)
    shifts = (back[apart.argmin(axis=1)] - points)[apart.min(axis=1) < 3.0 * width_px / 400] / 2
    tolerance_px = 0.03 if detector is RootSift else 0.1
    np.testing.assert_allclose(shifts.mean(axis=0) * 400 / width_px, 0.0, atol=tolerance_px)


def test_matches_are_mutual_distinct_and_one_to_one():
    rng = np.random.default_rng(2)
    unit = rng.normal(size=(6, 32)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    points = np.arange(12, dtype=np.float32).reshape(6, 2) * 10
    query = Features(points, unit)
    # Point 1 has a twin in the match image, points 4 and 5 lie on one another.
    twin = np.concatenate([unit, unit[1:2]])
    places = np.concatenate([points, points[:1] + 200])
    places[5] = places[4]
    pairs = match_mutual(query, Features(places, twin), 0.8)
    assert sorted(map(tuple, pairs.tolist()))[:3] == [(0, 0), (2, 2), (3, 3)]
    assert len(pairs) == 4
    assert len(match_mutual(query, Features(points[:1], unit[:1]), 0.8)) == 0


def test_motion_up_to_scale_is_found_among_wrong_matches():
    rng = np.random.default_rng(3)
    T = pose(0.6, -0.1, 0.3, 2, -8, 3)
    points = scene(rng)
    a, b = seen(points, np.eye(4), rng, 0.5), seen(points, T, rng, 0.5)
    b[:60] = rng.uniform(-0.5, 0.5, (60, 2))
    found = relative_pose(a, b, FOCAL_PX, ERROR_PX)
    assert found is not None
    assert found.kind is TransformKind.UP_TO_SCALE
    assert angle_deg(found.T[:3, 3], T[:3, 3]) < 3.0
    assert np.degrees(np.linalg.norm(pose_error(found.T, T)[3:])) < 0.3
    assert found.inliers[60:].mean() > 0.9
    assert found.inliers[:60].mean() < 0.2


def test_pure_rotation_has_no_direction():
    rng = np.random.default_rng(4)
    T = pose(0.0, 0.0, 0.0, 3, 12, -5)
    points = scene(rng)
    found = relative_pose(
        seen(points, np.eye(4), rng, 0.5), seen(points, T, rng, 0.5), FOCAL_PX, ERROR_PX
    )
    assert found is not None
    assert found.kind is TransformKind.ROTATION_ONLY
    assert not found.T[:3, 3].any()
    assert np.degrees(np.linalg.norm(pose_error(found.T, T)[3:])) < 0.1
    assert found.covariance[0, 0] > 1e5, 'the translation is unknown, and the covariance says so'


def test_a_plane_gives_the_right_pose_or_none():
    kinds = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        T = pose(0.8, 0.1, -1.0, 0, -3, 0)
        points = scene(rng, flat=True)
        found = relative_pose(
            seen(points, np.eye(4), rng, 0.3), seen(points, T, rng, 0.3), FOCAL_PX, ERROR_PX
        )
        assert found is not None
        assert found.planar
        kinds.append(found.kind)
        if found.kind is TransformKind.UP_TO_SCALE:
            assert angle_deg(found.T[:3, 3], T[:3, 3]) < 20.0
    assert TransformKind.NONE in kinds, 'two poses explain a plane: not all can be decided'


def test_matches_of_two_places_do_not_verify():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a, b = rng.uniform(-0.6, 0.6, (2, 120, 2))
        found = relative_pose(a, b, FOCAL_PX, ERROR_PX)
        assert found is None or found.inliers.mean() < 0.25
        assert epipolar_inliers(a * FOCAL_PX, b * FOCAL_PX, ERROR_PX).mean() < 0.25


def test_no_matrix_means_no_inliers(monkeypatch):
    points = np.random.default_rng(5).uniform(0, 400, (20, 2))
    assert epipolar_inliers(points, points + np.array([7.0, 0.0]), ERROR_PX).sum() > 15
    for nothing in (None, np.zeros((3, 3)), np.full((3, 3), np.nan), np.zeros((0, 0))):
        assert not is_fundamental(nothing)
        monkeypatch.setattr(
            'netvlad_ros.loop_closure.geometry.fundamental.poselib.estimate_fundamental',
            lambda *_, matrix=nothing: (matrix, {'inliers': [True] * 20}),
        )
        assert not epipolar_inliers(points, points, ERROR_PX).any()


def test_opencv_returns_the_trap_that_is_avoided():
    """A mask full of ones without a usable matrix, or an exception: neither is an inlier."""
    one = np.tile([[10.0, 20.0]], (12, 1))
    assert not epipolar_inliers(one, one, ERROR_PX).any()
    try:
        F, _ = cv2.findFundamentalMat(one, one, cv2.USAC_MAGSAC, 1.5, 0.999, 1000)
    except cv2.error:
        return
    assert not is_fundamental(F)


def test_estimates_repeat_bit_for_bit():
    rng = np.random.default_rng(6)
    points = scene(rng)
    a, b = seen(points, np.eye(4), rng, 1.0), seen(points, pose(1, 0, 0, 0, 5, 0), rng, 1.0)
    b[:90] = rng.uniform(-0.5, 0.5, (90, 2))
    cov = np.tile(np.eye(3) * 1e-4, (150, 1, 1))

    def estimates() -> list[bytes]:
        relative = relative_pose(a, b, FOCAL_PX, ERROR_PX)
        metric = absolute_pose(points, cov, b, FOCAL_PX, ERROR_PX)
        assert relative is not None
        assert metric is not None
        mask = epipolar_inliers(a * FOCAL_PX, b * FOCAL_PX, ERROR_PX)
        return [x.tobytes() for x in (
            relative.T, relative.covariance, relative.inliers, metric.T, metric.covariance, mask
        )]

    assert estimates() == estimates()


def nees(estimate: Callable[[np.random.Generator], tuple[FloatArray, FloatArray, FloatArray]]):
    values = []
    for seed in range(40):
        T_estimate, covariance, T_true = estimate(np.random.default_rng(seed))
        error = pose_error(T_estimate, T_true)
        values.append(error @ np.linalg.inv(covariance) @ error)
    return float(np.mean(values))


@pytest.mark.parametrize(('noise_px', 'depth_sigma'), [(0.3, 0.005), (0.8, 0.02), (0.4, 0.1)])
def test_covariance_from_depth_is_honest(noise_px, depth_sigma):
    """The noise is not told to the estimator: the residuals have to say it."""
    T = pose(0.5, -0.2, 0.4, 4, -6, 2)

    def estimate(rng: np.random.Generator):
        points = scene(rng)
        rays = seen(points, np.eye(4), rng, noise_px)
        depth = points[:, 2] + rng.normal(0.0, depth_sigma, len(points))
        space, cov = back_project(
            rays, depth, FOCAL_PX, 0.5 * ERROR_PX, np.full(len(points), depth_sigma)
        )
        there = seen(points, T, rng, noise_px)
        there[:30] = rng.uniform(-0.5, 0.5, (30, 2))
        found = absolute_pose(space, cov, there, FOCAL_PX, ERROR_PX)
        assert found is not None
        return found.T, found.covariance, T

    assert 3.0 <= nees(estimate) <= 12.0


def test_covariance_follows_an_inverse():
    T = pose(1.0, -2.0, 0.5, 10, -40, 20)
    root = np.random.default_rng(7).normal(size=(6, 6)) * 1e-3
    covariance = root @ root.T
    T_inverse, moved = inverse_covariance(T, covariance)
    np.testing.assert_allclose(T_inverse @ T, np.eye(4), atol=1e-12)
    rng = np.random.default_rng(8)
    errors = np.stack([
        pose_error(T_inverse, inverse(perturbed(T, root @ rng.normal(size=6))))
        for _ in range(1000)
    ])
    np.testing.assert_allclose(np.cov(errors.T), moved, atol=0.2 * np.abs(moved).max())


def test_landmarks_take_their_scale_from_odometry():
    rng = np.random.default_rng(9)
    points = scene(rng)
    centre = seen(points, np.eye(4), rng, 0.2)
    sightings = []
    for T in (pose(-0.5, 0.02, -0.1, 0, 4, 0), pose(0.6, 0.0, 0.2, 0, -5, 0)):
        rays = seen(points, T, rng, 0.2)
        rays[:15] = rng.uniform(-0.5, 0.5, (15, 2))
        bent = pose(0, 0, 0, 0.3, 0.8, -0.2) @ T
        motion = refined_motion(bent, centre, rays, FOCAL_PX, ERROR_PX)
        assert motion is not None
        assert np.degrees(np.linalg.norm(pose_error(motion, T)[3:])) < 0.2, 'matches correct it'
        assert np.linalg.norm(motion[:3, 3]) == pytest.approx(np.linalg.norm(T[:3, 3]))
        near = sighting(bent, np.arange(len(points)), centre, rays, FOCAL_PX, ERROR_PX)
        np.testing.assert_array_equal(near.T_neighbour_centre, motion)
        sightings.append(near)
    depth, sigma = triangulate(centre, sightings, FOCAL_PX, ERROR_PX)
    known = np.isfinite(depth)
    assert known[15:].mean() > 0.8
    assert known[:15].mean() < 0.4, 'a wrong match is no landmark'
    errors = (depth - points[:, 2])[15:][known[15:]] / points[15:, 2][known[15:]]
    assert np.median(np.abs(errors)) < 0.02
    assert (sigma[known] > 0).all()


def test_adjustment_of_landmarks_beats_its_start_and_is_honest(monkeypatch):
    """Odometry is off by one scale and bends by what the adjustment allows it."""
    monkeypatch.setattr(bundle, 'SHARED_NOISE', 0.0)  # made-up noise is all independent
    T = pose(0.8, -0.1, 0.5, 2, -8, 1)
    start = pose(0.9, -0.2, 0.4, 2, -7, 1)
    better = []

    def estimate(rng: np.random.Generator):
        points = scene(rng)
        count, scale = np.arange(len(points)), 1.0 + rng.normal(0.0, 0.02)
        second = points @ T[:3, :3].T + T[:3, 3]
        neighbours = []
        for cloud, x in ((points, -0.6), (points, 0.7), (second, 0.6)):
            step = pose(x, 0.0, 0.1, 0, 3, 0)
            turn = rng.normal(0.0, np.degrees(bundle.ODOMETRY_TURN_RAD), 3)
            odom = pose(x * scale, 0.0, 0.1 * scale, 0, 3, 0) @ pose(0, 0, 0, *turn)
            a, b = seen(cloud, np.eye(4), rng, 0.0), seen(cloud, step, rng, 0.4)
            neighbours.append(sighting(odom, count, a, b, FOCAL_PX, ERROR_PX))
        found = bundle.adjust(
            start, seen(points, np.eye(4), rng, 0.0), seen(points, T, rng, 0.4), neighbours[:2],
            neighbours[2:], FOCAL_PX, ERROR_PX, 0.02,
        )
        better.append(np.linalg.norm(pose_error(found.T, T)) < 0.2 * np.linalg.norm(
            pose_error(start, T)
        ))
        return found.T, found.covariance, T

    assert 3.0 <= nees(estimate) <= 12.0
    assert np.mean(better) > 0.8


def test_a_match_that_seems_very_near_does_not_fix_the_pose(monkeypatch):
    """Nothing is recognised from 50 degrees aside: such a point is wrong, however well it fits."""
    rng = np.random.default_rng(12)
    T, motion = pose(0.02, 0.01, 0.0, 0, 1, 0), pose(0.6, 0.0, 0.1, 0, 3, 0)
    points = scene(rng)
    points[0] = 0.0, 0.0, 0.5
    first, second, near = (seen(points, view, rng, 0.4) for view in (np.eye(4), T, motion))
    neighbour = Sighting(motion, motion, np.arange(len(points)), near)

    def deviation_m() -> float:
        found = bundle.adjust(T, first, second, [neighbour], [], FOCAL_PX, ERROR_PX, 0.02)
        return float(np.sqrt(np.trace(found.covariance[:3, :3])))

    without_it = deviation_m()
    monkeypatch.setattr(bundle, 'MAX_PARALLAX', 100.0)
    assert without_it > 1.1 * deviation_m()


def test_odometry_that_the_images_deny_gives_no_landmarks():
    rng = np.random.default_rng(10)
    points = scene(rng)
    a, b = seen(points, np.eye(4), rng, 0.2), seen(points, pose(0.5, 0, 0), rng, 0.2)
    assert refined_motion(pose(0, 0, 0.5), a, b, FOCAL_PX, ERROR_PX) is None
    assert refined_motion(pose(0.01, 0, 0), a, b, FOCAL_PX, ERROR_PX) is None
