# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated course, odometry, light and sensor, without rendering."""

from __future__ import annotations

import numpy as np
import pytest

from netvlad_ros.errors import ConfigError, NetvladError
from netvlad_ros.simulation import renderer
from netvlad_ros.simulation.camera import make_camera
from netvlad_ros.simulation.course import MAX_SPEED_MPS, RATE_HZ, STOP_S, make_course
from netvlad_ros.simulation.drive import Drive, DriveConfig
from netvlad_ros.simulation.exposure import DEPTH_RANGE_M, DEPTH_STEP, image_flow, sense_depth
from netvlad_ros.simulation.facade import FacadeSpec, draw_facade
from netvlad_ros.simulation.layout import make_street
from netvlad_ros.simulation.light import LightCourse
from netvlad_ros.simulation.odometry import drift_percent, drifting

LAPS = 2.0


@pytest.fixture(scope='module', params=[0, 1, 2])
def drive(request: pytest.FixtureRequest) -> Drive:
    return Drive(DriveConfig(seed=request.param, laps=LAPS))


def test_second_lap_revisits_the_first_with_a_lateral_offset(drive: Drive) -> None:
    course, lap_m = drive.course, drive.street.length_m
    forward = course.time_s <= course.time_s[np.argmax(course.along_m)]
    on_first = np.flatnonzero(forward & (course.along_m < lap_m) & (course.along_m > 1.0))
    offsets = []
    for i in on_first[::200]:
        again = np.flatnonzero(forward & (course.along_m > lap_m))
        j = again[np.argmin(np.linalg.norm(course.xy[again] - course.xy[i], axis=1))]
        offsets.append(np.linalg.norm(course.xy[j] - course.xy[i]))
        turn = (course.yaw_rad[j] - course.yaw_rad[i] + np.pi) % (2 * np.pi) - np.pi
        assert abs(turn) < np.radians(45)
    assert max(offsets) < 2.0
    assert np.median(offsets) > 0.15


def test_way_back_faces_the_other_way_on_the_other_side(drive: Drive) -> None:
    course = drive.course
    top = int(np.argmax(course.along_m))
    assert course.along_m[top] - course.along_m[-1] == pytest.approx(
        drive.street.length_m / 3, rel=0.1
    )
    gaps = []
    for i in range(len(course.time_s) - 1, top + 15 * RATE_HZ, -200):
        j = int(np.argmin(np.abs(course.along_m[:top] - course.along_m[i])))
        c, s = np.cos(course.yaw_rad[j]), np.sin(course.yaw_rad[j])
        turn = (course.yaw_rad[i] - course.yaw_rad[j]) % (2 * np.pi) - np.pi
        assert abs(turn) < np.radians(45)
        gaps.append(-s * (course.xy[i] - course.xy[j])[0] + c * (course.xy[i] - course.xy[j])[1])
    assert min(gaps) > 0.5, 'the way back is to the left of the way there'


def test_robot_moves_smoothly_and_stands_once_on_the_way(drive: Drive) -> None:
    course = drive.course
    speed = np.linalg.norm(np.diff(course.xy, axis=0), axis=1) * RATE_HZ
    yaw_rate = np.abs(np.diff(course.yaw_rad)) * RATE_HZ
    assert speed.max() <= MAX_SPEED_MPS + 0.05
    assert np.median(speed) > 1.5
    assert yaw_rate.max() < 1.5
    middle = (course.time_s[1:] > 5.0) & (course.along_m[1:] < 1.5 * drive.street.length_m)
    standing = np.sum((speed < 1e-6) & middle) / RATE_HZ
    assert standing == pytest.approx(STOP_S, abs=0.2)


@pytest.mark.parametrize('percent', [1.0, 2.0, 3.0])
def test_odometry_drifts_as_asked(drive: Drive, percent: float) -> None:
    odometry = drifting(drive.truth, percent, drive.config.seed)
    assert drift_percent(drive.truth, odometry) == pytest.approx(percent, rel=0.05)
    standing = np.linalg.norm(np.diff(drive.truth, axis=0), axis=1) == 0.0
    assert standing.sum() > 100
    assert np.all(np.diff(odometry, axis=0)[standing] == 0.0)


def test_drift_percent_of_a_line_with_wrong_scale() -> None:
    line = np.zeros((1001, 3))
    line[:, 0] = np.linspace(0.0, 100.0, 1001)
    assert drift_percent(line, line * [1.02, 1.0, 1.0]) == pytest.approx(2.0, abs=0.01)
    assert drift_percent(line[:50], line[:50]) == 0.0


def test_another_seed_is_another_street() -> None:
    streets = [Drive(DriveConfig(seed=seed)).street.centre_xy for seed in (0, 0, 1)]
    assert np.array_equal(streets[0], streets[1])
    assert not np.array_equal(streets[0], streets[2])


@pytest.mark.parametrize('length_m', [40.0, 80.0, 200.0, 600.0])
def test_street_has_the_length_asked_for(length_m: float) -> None:
    for seed in range(5):
        street = make_street(np.random.default_rng(seed), length_m)
        assert street.length_m == pytest.approx(length_m)
        course = make_course(seed, street, 1.0, reverse=False)
        assert course.travelled_m == pytest.approx(length_m, rel=0.15)


def test_front_depends_on_its_spec_alone() -> None:
    spec = FacadeSpec(7, 6.0, 7.2)
    assert np.array_equal(draw_facade(spec).texture, draw_facade(spec).texture)
    assert not np.array_equal(draw_facade(spec).texture,
                              draw_facade(FacadeSpec(8, 6.0, 7.2)).texture)


def test_light_changes_over_the_drive() -> None:
    course = LightCourse('changing', 0)
    lights = [course.at(f) for f in np.linspace(0, 1, 50)]
    sun = [light.sun for light in lights]
    assert max(sun) > 2.0 * min(sun)
    assert lights[-1].sun_azimuth_rad - lights[0].sun_azimuth_rad > 1.0
    assert LightCourse('day', 0).at(0.1) == LightCourse('day', 0).at(0.9)


def test_depth_is_rounded_within_its_step_and_cut_to_its_range() -> None:
    depth_m = np.array([[0.1, DEPTH_RANGE_M[0] + 0.01, 1.0, 7.3, 39.0, 41.0, np.inf]], np.float32)
    depth_mm = sense_depth(depth_m)
    assert depth_mm.dtype == np.uint16
    assert np.all(depth_mm[0, [0, 5, 6]] == 0)
    valid = depth_m[0, 1:5] * 1000
    assert np.all(np.abs(depth_mm[0, 1:5] - valid) <= 0.5 * DEPTH_STEP * valid + 1)


def test_flow_of_a_turn_is_the_focal_length_times_the_angle() -> None:
    camera, angle = make_camera(), 0.01
    turn = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    turn[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]  # to the right: y points down
    flow = image_flow(np.full((480, 640), 5.0, np.float32), turn, camera)
    assert camera.K is not None
    assert flow[30, 40, 0] == pytest.approx(-camera.K[0, 0] * angle, rel=0.02)
    assert abs(flow[30, 40, 1]) < 0.05


@pytest.mark.parametrize('change', [
    {'length_m': 10.0}, {'laps': 0.0}, {'light': 'noon'}, {'drift': -1.0}, {'rate_hz': 0.0},
])
def test_setting_out_of_range_is_named(change: dict[str, object]) -> None:
    name = next(iter(change))
    with pytest.raises(ConfigError, match=f'{name} is .*, allowed: '):
        Drive(DriveConfig(**change))


def test_log_of_vtk_is_stripped_to_its_message() -> None:
    log = '\x1b[0m\x1b[33m2026-01-01 (6.6s) [7F84]vtkRenderWindow:150 WARN| no OSMesa\x1b[0m'
    assert renderer.explain(log).endswith('(no OSMesa)')


@pytest.mark.parametrize('program', [
    "import sys; sys.exit('libEGL.so.1: cannot open shared object file')",
    'import os; os.abort()',
])
def test_failed_rendering_names_the_system_library(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, 'PROBE', program)
    renderer.require_rendering.cache_clear()
    with pytest.raises(NetvladError, match='sudo apt install libegl1 libgl1') as error:
        renderer.require_rendering()
    assert '\n' not in str(error.value)
    renderer.require_rendering.cache_clear()
