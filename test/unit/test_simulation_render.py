# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rendered drives and datasets: geometry of the pictures, content of the bag and the files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from scipy.io import loadmat

from netvlad_ros.cli import simulate
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.geometry import inverse
from netvlad_ros.simulation.drive import Drive, DriveConfig, simulate_drive
from netvlad_ros.simulation.lots import CORNER_WIDTH_M
from netvlad_ros.simulation.odometry import drift_percent
from netvlad_ros.simulation.places import SPLITS, PlacesConfig, simulate_places, town_seed
from netvlad_ros.simulation.renderer import Renderer, RenderError, require_rendering
from netvlad_ros.simulation.world import World, make_world
from netvlad_ros.types import FloatArray

STORE = get_typestore(Stores.ROS2_JAZZY)
TINY = DriveConfig(seed=4, length_m=40.0, laps=0.2, rate_hz=1.0, reverse=True)


@pytest.fixture(scope='module', autouse=True)
def _rendering_works() -> None:
    try:
        require_rendering()
    except RenderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def drive() -> Drive:
    return Drive(DriveConfig(seed=4, length_m=60.0))


@pytest.fixture(scope='module')
def world(drive: Drive) -> World:
    return make_world(drive.config.seed, drive.street)


@pytest.fixture(scope='module')
def view(drive: Drive, world: World) -> Iterator[Renderer]:
    renderer = Renderer(world, drive.camera)
    renderer.set_light(drive.light(0.0))
    yield renderer
    renderer.close()


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('bags') / 'drive'
    simulate_drive(path, TINY)
    return path


def messages(path: Path) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    with Reader(path) as reader:
        for connection, stamp_ns, data in reader.messages():
            message = STORE.deserialize_cdr(data, connection.msgtype)
            out.setdefault(connection.topic, []).append((stamp_ns, message))
    return out


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def pixels_with_points(drive: Drive, depth_m: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return every 8th pixel with depth, (N, 2), and its point in the camera, (N, 3)."""
    v, u = np.mgrid[4:480:8, 4:640:8].reshape(2, -1)
    near = depth_m[v, u] < 40.0
    u, v = u[near], v[near]
    K = drive.camera.K
    assert K is not None
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(K).T
    return np.stack([u, v], axis=1), rays * depth_m[v, u][:, None]


def test_depth_and_colour_of_one_view_predict_another(drive: Drive, view: Renderer) -> None:
    T_a, T_b = drive.camera_pose(6.0), drive.camera_pose(6.4)
    (image_a, depth_a), (image_b, depth_b) = view.render(T_a), view.render(T_b)
    pixels, points = pixels_with_points(drive, depth_a)
    T_b_a = inverse(T_b) @ T_a
    points_b = points @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    projected = points_b @ drive.camera.K.T
    seen = np.round(projected[:, :2] / projected[:, 2:]).astype(int)
    inside = (points_b[:, 2] > 0.5) & np.all((seen >= 0) & (seen < [640, 480]), axis=1)
    u, v = seen[inside].T
    ratio = depth_b[v, u] / points_b[inside, 2]
    agree = np.abs(ratio - 1.0) < 0.02
    assert agree.mean() > 0.93
    assert np.median(np.abs(ratio - 1.0)) < 0.003
    colour_a = image_a[pixels[inside][:, 1], pixels[inside][:, 0]].astype(int)
    difference = np.abs(colour_a - image_b[v, u].astype(int)).mean(axis=1)[agree]
    assert np.median(difference) < 6.0


def root_sift(image: np.ndarray) -> tuple[Any, np.ndarray]:
    keypoints, rows = cv2.SIFT_create(1500).detectAndCompute(image, None)
    rows = np.sqrt(rows / (rows.sum(axis=1, keepdims=True) + 1e-9))
    return keypoints, rows.astype(np.float32)


@pytest.mark.parametrize('fraction', [0.15, 0.55, 0.8])
def test_second_lap_is_located_by_matching_features_of_the_first(
    drive: Drive, view: Renderer, fraction: float
) -> None:
    course, lap_m = drive.course, drive.street.length_m
    first, second = (
        course.time_s[int(np.argmax(course.along_m > (fraction + lap) * lap_m))] for lap in (0, 1)
    )
    T_a, T_b = drive.camera_pose(first), drive.camera_pose(second)
    image_a, depth_a = view.render(T_a)
    image_b, _ = view.render(T_b)
    (points_a, rows_a), (points_b, rows_b) = root_sift(image_a), root_sift(image_b)
    pairs = [m for m, n in cv2.BFMatcher().knnMatch(rows_b, rows_a, k=2)
             if m.distance < 0.8 * n.distance]
    K = drive.camera.K
    pixels_a = np.array([points_a[m.trainIdx].pt for m in pairs])
    depth = depth_a[tuple(np.round(pixels_a[:, ::-1]).astype(int).T)]
    rays = np.column_stack([pixels_a, np.ones(len(pairs))]) @ np.linalg.inv(K).T
    keep = np.isfinite(depth)
    pixels_b = np.array([points_b[m.queryIdx].pt for m in pairs])[keep]
    cv2.setRNGSeed(0)
    _, rotation, translation, inliers = cv2.solvePnPRansac(
        (rays * depth[:, None])[keep], pixels_b, K, None, reprojectionError=2.0,
        iterationsCount=500,
    )
    assert len(inliers) >= 40
    T_b_a = inverse(T_b) @ T_a
    assert np.linalg.norm(translation.ravel() - T_b_a[:3, 3]) < 0.05
    turn = cv2.Rodrigues(rotation)[0] @ T_b_a[:3, :3].T
    assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 1.0


def test_one_corner_is_built_twice(world: World) -> None:
    fronts: dict[str, list[FloatArray]] = {}
    for surface in world.surfaces:
        width = float(np.linalg.norm(surface.points[1] - surface.points[0]))
        if len(surface.quads) == 1 and abs(width - CORNER_WIDTH_M) < 1e-3:
            digest = hashlib.sha256(np.ascontiguousarray(surface.texture)).hexdigest()
            fronts.setdefault(digest, []).append(surface.points.mean(axis=0))
    twins = [places for places in fronts.values() if len(places) == 2]
    assert len(twins) == 2
    assert all(np.linalg.norm(a - b) > 8.0 for a, b in twins)


def test_bag_has_every_topic_with_its_frames_and_stamps(bag: Path) -> None:
    got = messages(bag)
    assert sorted(got) == ['/camera_info', '/depth', '/ground_truth/odom', '/image/compressed',
                           '/odom', '/tf_static']
    images, depths = got['/image/compressed'], got['/depth']
    assert len(images) == len(depths) == len(got['/camera_info']) > 15
    for (bag_ns, image), (_, depth), (_, info) in zip(images, depths, got['/camera_info'],
                                                      strict=True):
        assert bag_ns == stamp_ns(image) == stamp_ns(depth) == stamp_ns(info)
        assert image.header.frame_id == depth.header.frame_id == 'camera_optical'
    assert np.allclose(np.diff([stamp_ns(m) for _, m in images]), 1e9 / TINY.rate_hz)
    picture = cv2.imdecode(images[0][1].data, cv2.IMREAD_COLOR)
    assert picture.shape == (480, 640, 3)
    assert picture.std() > 20.0
    depth = depths[0][1]
    assert (depth.encoding, depth.width, depth.height, depth.step) == ('16UC1', 640, 480, 1280)
    assert np.median(np.frombuffer(depth.data, '<u2')) > 500
    info = got['/camera_info'][0][1]
    assert (info.distortion_model, info.d.tolist()) == ('plumb_bob', [0.0] * 5)
    odom_ns = np.array([stamp_ns(m) for _, m in got['/odom']])
    assert np.all(np.diff(odom_ns) == 20_000_000)
    assert odom_ns[0] <= stamp_ns(images[0][1])
    assert odom_ns[-1] >= stamp_ns(images[-1][1])
    frames = {(m.header.frame_id, m.child_frame_id) for _, m in got['/odom']}
    truth = {(m.header.frame_id, m.child_frame_id) for _, m in got['/ground_truth/odom']}
    assert (frames, truth) == ({('odom', 'base_link')}, {('world', 'base_link')})


def test_bag_orders_its_messages_by_time(bag: Path) -> None:
    with Reader(bag) as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert stamps == sorted(stamps)


def test_static_transform_is_an_optical_frame(bag: Path) -> None:
    ((_, message),) = messages(bag)['/tf_static']
    (transform,) = message.transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ('base_link', 'camera_optical')
    q = transform.transform.rotation
    from scipy.spatial.transform import Rotation

    R = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    assert np.allclose(R @ [1, 0, 0], [0, -1, 0]), 'x of the image is to the right of the robot'
    assert (R @ [0, 0, 1])[0] > 0.99, 'the camera looks ahead'


def test_bag_odometry_drifts_from_its_truth(bag: Path) -> None:
    got = messages(bag)

    def planar(topic: str) -> FloatArray:
        poses = [m.pose.pose for _, m in got[topic]]
        yaw = [2 * np.arctan2(p.orientation.z, p.orientation.w) for p in poses]
        xy = [(p.position.x, p.position.y) for p in poses]
        return np.column_stack([xy, np.unwrap(yaw)])

    drift = drift_percent(planar('/ground_truth/odom'), planar('/odom'))
    assert drift == pytest.approx(TINY.drift, rel=0.1)


def test_same_seed_gives_the_same_messages(bag: Path, tmp_path: Path) -> None:
    again = tmp_path / 'again'
    simulate_drive(again, TINY)

    def content(path: Path) -> list[tuple[str, int, bytes]]:
        with Reader(path) as reader:
            return [(c.topic, t, bytes(data)) for c, t, data in reader.messages()]

    assert content(bag) == content(again)


def test_raw_images_are_rgb8(tmp_path: Path) -> None:
    path = tmp_path / 'raw'
    config = DriveConfig(seed=4, length_m=40.0, laps=0.1, rate_hz=0.5, reverse=False, raw=True)
    simulate_drive(path, config)
    image = messages(path)['/image'][0][1]
    assert (image.encoding, image.width, image.height, image.step) == ('rgb8', 640, 480, 1920)
    assert len(image.data) == 640 * 480 * 3


def test_output_that_exists_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / 'taken'
    taken.mkdir()
    with pytest.raises(InputError, match='exists; give a new name'):
        simulate_drive(taken, TINY)
    with pytest.raises(InputError, match='exists; give a new name'):
        simulate_places(taken, PlacesConfig())
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(InputError, match='cannot write output'):
        simulate_drive(file / 'bag', TINY)
    with pytest.raises(InputError, match='cannot write output'):
        simulate_places(file / 'places', PlacesConfig())
    with pytest.raises(InputError, match='@'):
        simulate_places(tmp_path / 'a@b', PlacesConfig())


def test_drive_that_is_interrupted_leaves_no_bag(tmp_path: Path) -> None:
    path = tmp_path / 'stopped'

    def interrupted(shots: Any, **_: object) -> Iterator[Any]:
        yield next(iter(shots))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_drive(path, TINY, interrupted)
    assert not path.exists()


def test_places_come_in_the_pitts_layout(tmp_path: Path) -> None:
    folder = tmp_path / 'places'
    config = PlacesConfig(places=2, headings=3, queries=2, seed=1, town_m=60.0)
    summary = simulate_places(folder, config)
    assert summary.places == {'train': 2, 'val': 1, 'test': 1}
    for split in SPLITS:
        struct = loadmat(folder / f'{split}.mat')['dbStruct'][0, 0]
        count = summary.places[split]
        for names, utm, per_place in (('dbImageFns', 'utmDb', 3), ('qImageFns', 'utmQ', 2)):
            files = [str(cell[0]) for cell in struct[names][:, 0]]
            assert struct[names].shape == (count * per_place, 1)
            assert struct[utm].shape == (2, count * per_place)
            for name, position in zip(files, struct[utm].T, strict=True):
                assert [float(x) for x in name.split('@')[1:3]] == position.tolist()
                assert cv2.imread(str(folder / name)).shape == (480, 640, 3)
        # A query has its own place's images within the radius.
        gap = np.linalg.norm(struct['utmQ'].T[:, None] - struct['utmDb'].T[None], axis=2)
        assert np.all(gap.min(axis=1) <= float(struct['posDistThr'][0, 0]))
    seeds = [town_seed(1, split, town) for split in SPLITS for town in range(50)]
    assert len(set(seeds)) == len(seeds)


def test_options_of_drive_and_dataset_do_not_mix(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    for words, reason in (
        (['--places', '3', '--laps', '1'], '--laps does not go with --places'),
        (['--gps-noise', '1'], '--gps-noise needs --places'),
    ):
        with pytest.raises(ConfigError, match=reason):
            simulate.run(parser.parse_args([str(tmp_path / 'x'), *words]))
