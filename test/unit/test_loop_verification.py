# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The verifier on images whose geometry is known, and on real ones."""

import csv
from dataclasses import replace
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from netvlad_ros.config import VerificationConfig
from netvlad_ros.geometry import inverse
from netvlad_ros.loop_closure.geometry.covariance import pose_error
from netvlad_ros.loop_closure.geometry.features import Features
from netvlad_ros.loop_closure.verification import SIMILARITY_SCALE, Verifier
from netvlad_ros.loop_closure.view import LocalView, View
from netvlad_ros.types import (
    Camera,
    ClosureStatus,
    FloatArray,
    Keyframe,
    LoopClosure,
    RejectReason,
    TransformKind,
    UInt8Array,
)

K = np.array([[300.0, 0, 199.5], [0, 300.0, 149.5], [0, 0, 1]])
CAMERA = Camera(K=K, size_wh=(400, 300), T_base_camera=np.eye(4))
CLOSURE = LoopClosure(Keyframe(9, 9, 's', 'c', 0), Keyframe(1, 1, 's', 'c', 0), 0.9, 'm@1')
# The walls of the room: distance along z, and where each starts and ends in x.
WALLS = ((4.0, -9.0, -0.4), (6.0, -0.4, 9.0))


def texture(seed: int) -> UInt8Array:
    """Return a wall (900, 1800) of 100 pixels per metre, full of corners and blobs."""
    rng = np.random.default_rng(seed)
    wall = np.full((900, 1800), 128, np.uint8)
    for x, y, w, h, value in rng.integers([0, 0, 8, 8, 0], [1800, 900, 70, 70, 255], (1500, 5)):
        cv2.rectangle(wall, (x, y), (x + w, y + h), int(value), -1)
    return cv2.GaussianBlur(wall, (0, 0), 1.0)


def render(T_room_camera: FloatArray, seed: int = 0) -> View:
    """Return the view of two textured walls from a pose, with exact depth and odometry."""
    image, depth = np.zeros((300, 400), np.uint8), np.zeros((300, 400), np.float32)
    columns, rows = np.meshgrid(np.arange(400), np.arange(300))
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T
    rays = rays @ T_room_camera[:3, :3].T
    centre = T_room_camera[:3, 3]
    for index, (distance, start, end) in enumerate(WALLS):
        scale = (distance - centre[2]) / rays[..., 2]
        hit = centre + scale[..., None] * rays
        at = ((hit[..., :2] + [9.0, 4.5]) * 100.0).astype(np.float32)
        wall = cv2.remap(texture(seed * 10 + index), at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        here = (hit[..., 0] >= start) & (hit[..., 0] < end) & ((depth == 0) | (scale < depth))
        image[here], depth[here] = wall[here], scale[here]
    return View(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), CAMERA, T_room_camera, depth)


def at(x: float, z: float, yaw_deg: float) -> FloatArray:
    out = np.eye(4)
    out[:3, :3] = cv2.Rodrigues(np.array([0.0, np.radians(yaw_deg), 0.0]))[0]
    out[:3, 3] = x, 0.0, z
    return out


QUERY, MATCH = at(0.5, 0.3, 4.0), at(0.0, 0.0, 0.0)
TRUE_POSE = inverse(MATCH) @ QUERY


@pytest.fixture(scope='module')
def verifier() -> Verifier:
    return Verifier(VerificationConfig(time_budget_s=60.0))


def without(view: View, **changes: object) -> View:
    return View(**{
        'image_rgb': view.image_rgb, 'camera': view.camera, 'T_odom_base': view.T_odom_base,
        'depth_m': view.depth_m, **changes,
    })  # fmt: skip


def answer(verifier: Verifier, *views: View, best_similarity: float = -1.0) -> LoopClosure:
    return verifier.check(CLOSURE, *views, best_similarity=best_similarity).closure


def test_depth_of_either_side_gives_a_metric_pose(verifier):
    query, match = render(QUERY), render(MATCH)
    for a, b in ((query, match), (query, without(match, depth_m=None)),
                 (without(query, depth_m=None), match)):  # fmt: skip
        found = answer(verifier, a, b)
        assert found.status is ClosureStatus.VERIFIED
        assert found.transform_kind is TransformKind.METRIC
        error = pose_error(found.T_match_query, TRUE_POSE)
        assert np.linalg.norm(error[:3]) < 0.01
        assert np.degrees(np.linalg.norm(error[3:])) < 0.2
        assert np.linalg.eigvalsh(found.covariance).min() > 0.0
        assert found.num_matches >= found.num_inliers >= 8


def test_matches_out_of_reach_of_the_depth_camera_count(verifier):
    query, match = render(QUERY), without(render(MATCH), depth_m=None)
    whole = answer(verifier, query, match)
    depth_m = np.where(np.arange(400) < 320, np.nan, query.depth_m).astype(np.float32)
    part = answer(verifier, without(query, depth_m=depth_m), match)
    assert part.transform_kind is TransformKind.METRIC
    assert part.num_inliers > 0.9 * whole.num_inliers
    # Where the pose is that of standing still, no epipolar line tells them apart.
    elsewhere = answer(verifier, without(query, depth_m=depth_m), render(MATCH, seed=1))
    assert elsewhere.status is ClosureStatus.REJECTED


def test_depth_of_the_robot_itself_does_not_measure_the_way_of_the_camera(verifier):
    views = []
    for T in (QUERY, MATCH):
        view = render(T)
        view.image_rgb[200:, :100] = texture(7)[:100, :100, None]
        depth_m = np.full((300, 400), np.nan, np.float32)
        depth_m[200:, :100] = 0.8
        views.append(without(view, depth_m=depth_m))
    found = answer(verifier, *views)
    assert found.transform_kind is TransformKind.UP_TO_SCALE
    t = TRUE_POSE[:3, 3] / np.linalg.norm(TRUE_POSE[:3, 3])
    assert np.linalg.norm(found.T_match_query[:3, 3] - t) < 0.1
    assert np.linalg.norm(found.T_match_query[:3, 3]) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize('is_calibrated', [True, False])
def test_pixels_of_two_sizes_let_no_more_wrong_matches_agree(verifier, is_calibrated):
    def wrong(width_px: int, rng: np.random.Generator) -> View:
        size_wh, f = (width_px, 3 * width_px // 4), 0.8 * width_px
        k = np.array([[f, 0, size_wh[0] / 2], [0, f, size_wh[1] / 2], [0, 0, 1]])
        camera = Camera(K=k if is_calibrated else None, size_wh=size_wh)
        points_px = rng.uniform((0, 0), size_wh, (60, 2)).astype(np.float32)
        rays = ((points_px - k[:2, 2]) / f).astype(np.float64) if is_calibrated else None
        features = Features(points_px, np.eye(60, dtype=np.float32), width_px / 320)
        local = LocalView(features, camera, rays, np.ones(60, bool), None, None)
        return View(None, camera, _local=local)

    def inliers(width_px: int) -> float:
        rng = np.random.default_rng(0)
        views = [(wrong(1920, rng), wrong(width_px, rng)) for _ in range(12)]
        return float(np.mean([answer(verifier, *pair).num_inliers for pair in views]))

    assert inliers(320) == pytest.approx(inliers(1920), rel=0.1)


def test_one_camera_gives_a_direction_and_odometry_its_length(verifier):
    query = without(render(QUERY), depth_m=None)
    match = without(render(MATCH), depth_m=None)
    found = answer(verifier, query, match)
    assert found.transform_kind is TransformKind.UP_TO_SCALE
    t = TRUE_POSE[:3, 3] / np.linalg.norm(TRUE_POSE[:3, 3])
    assert np.linalg.norm(found.T_match_query[:3, 3] - t) < 0.1

    near = [without(render(at(x, 0.0, 0.0)), depth_m=None) for x in (-0.4, 0.4)]
    found = verifier.measure(verifier.check(CLOSURE, query, match), query, match, (), near)
    assert found.transform_kind is TransformKind.METRIC
    error = pose_error(found.T_match_query, TRUE_POSE)
    assert np.linalg.norm(error[:3]) < 0.03 * np.linalg.norm(TRUE_POSE[:3, 3])
    assert np.degrees(np.linalg.norm(error[3:])) < 1.0


def test_turning_on_the_spot_is_rotation_only(verifier):
    turned = without(render(at(0.0, 0.0, 9.0)), depth_m=None)
    found = answer(verifier, turned, without(render(MATCH), depth_m=None))
    assert found.status is ClosureStatus.VERIFIED
    assert found.transform_kind is TransformKind.ROTATION_ONLY


def test_an_uncalibrated_camera_is_verified_without_a_pose(verifier):
    query, match = (without(render(T), camera=Camera()) for T in (QUERY, MATCH))
    found = answer(verifier, query, match)
    assert found.status is ClosureStatus.VERIFIED
    assert found.transform_kind is TransformKind.NONE
    assert found.T_match_query is None
    assert found.covariance is None


def test_the_same_wall_from_afar_is_no_closure_without_a_pose(verifier):
    far, near = (without(render(at(0.0, z, 0.0)), camera=Camera()) for z in (-6.0, 1.0))
    found = answer(verifier, far, near)
    assert found.status is ClosureStatus.REJECTED


def test_without_a_metric_pose_a_less_similar_match_scores_less(verifier):
    query, match = render(QUERY), render(MATCH)
    bare = [without(view, camera=Camera()) for view in (query, match)]
    best = answer(verifier, *bare, best_similarity=CLOSURE.similarity)
    worse = answer(verifier, *bare, best_similarity=CLOSURE.similarity + SIMILARITY_SCALE)
    assert worse.verification_score == pytest.approx(best.verification_score / math.e)
    metric = [answer(verifier, query, match, best_similarity=s) for s in (-1.0, 1.0)]
    assert metric[0].verification_score == metric[1].verification_score


@pytest.mark.parametrize('camera', [CAMERA, Camera()], ids=['calibrated', 'uncalibrated'])
def test_another_place_is_rejected_with_its_reason(verifier, camera):
    other = without(render(QUERY, seed=5), camera=camera)
    found = answer(verifier, other, without(render(MATCH), camera=camera))
    assert found.status is ClosureStatus.REJECTED
    assert found.reject_reason in (RejectReason.TOO_FEW_MATCHES, RejectReason.TOO_FEW_INLIERS)
    assert found.transform_kind is TransformKind.NONE


def test_blank_images_missing_images_and_no_time_are_rejected_with_their_reason(verifier):
    match = render(MATCH)
    blank = View(np.full((300, 400, 3), 90, np.uint8), CAMERA)
    assert answer(verifier, blank, match).reject_reason is RejectReason.TOO_FEW_MATCHES
    missing = View(None, CAMERA)
    assert answer(verifier, missing, match).reject_reason is RejectReason.NO_IMAGE
    hurried = Verifier(VerificationConfig(time_budget_s=0.001))
    found = answer(hurried, render(QUERY), match)
    assert found.reject_reason is RejectReason.TIME_BUDGET
    assert found.status is ClosureStatus.REJECTED


def test_features_are_found_once_and_a_compact_view_is_as_good(verifier):
    query, match = render(QUERY), render(MATCH)
    first = query.local(verifier.extractor)
    assert query.local(verifier.extractor) is first
    small = match.compact(verifier.extractor)
    assert small.image_rgb is None
    assert small.depth_m is None
    a, b = answer(verifier, query, match), answer(verifier, query, small)
    assert a.T_match_query.tobytes() == b.T_match_query.tobytes()
    assert a.covariance.tobytes() == b.covariance.tobytes()
    assert replace(a, T_match_query=None, covariance=None) == replace(
        b, T_match_query=None, covariance=None
    )


def test_an_image_of_another_size_than_its_calibration_keeps_the_pose(verifier):
    views = []
    for T in (QUERY, MATCH):
        view = render(T)
        big = cv2.resize(view.image_rgb, (800, 600), interpolation=cv2.INTER_CUBIC)
        views.append(without(view, image_rgb=big))
    found = answer(verifier, *views)
    assert found.transform_kind is TransformKind.METRIC
    assert np.linalg.norm(pose_error(found.T_match_query, TRUE_POSE)[:3]) < 0.02


def test_orb_verifies_what_it_should():
    orb = Verifier(VerificationConfig(features='orb', time_budget_s=60.0))
    query, match = render(QUERY), render(MATCH)
    assert answer(orb, query, match).status is ClosureStatus.VERIFIED
    assert answer(orb, render(QUERY, seed=5), match).status is ClosureStatus.REJECTED


def test_real_corridor_laps_match_themselves_and_not_each_other(shared_data: Path, verifier):
    folder = shared_data / 'sequences' / 'rtabmap_two_laps'
    with (folder / 'frames.csv').open() as file:
        images = [folder / row['image'] for row in csv.DictReader(file)]

    def view(index: int) -> View:
        return View(cv2.cvtColor(cv2.imread(str(images[index])), cv2.COLOR_BGR2RGB))

    again = [answer(verifier, view(q), view(m)).status for q, m in ((52, 12), (72, 32))]
    assert again == [ClosureStatus.VERIFIED] * 2
    other = [answer(verifier, view(q), view(m)).status for q, m in ((52, 30), (72, 12))]
    assert other == [ClosureStatus.REJECTED] * 2
