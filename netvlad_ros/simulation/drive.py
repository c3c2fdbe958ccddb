# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated drive: town, course, camera and odometry, written as one bag."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
import time
from typing import Any, Optional

import cv2
import numpy as np
import numpy.typing as npt

from netvlad_ros.config import setting, validate
from netvlad_ros.errors import InputError
from netvlad_ros.geometry import inverse
from netvlad_ros.simulation.bag import NANOSECONDS, DriveBag
from netvlad_ros.simulation.camera import BASE_FRAME, make_camera
from netvlad_ros.simulation.course import Course, make_course, pose_from_planar
from netvlad_ros.simulation.exposure import Sensor, sense_depth
from netvlad_ros.simulation.layout import MAX_LENGTH_M, MIN_LENGTH_M, make_street
from netvlad_ros.simulation.light import LIGHTS, Light, LightCourse
from netvlad_ros.simulation.odometry import drift_percent, drifting, increments
from netvlad_ros.simulation.renderer import Renderer, require_rendering
from netvlad_ros.simulation.world import make_world
from netvlad_ros.types import Camera, Float32Array, FloatArray, UInt8Array

ODOMETRY_HZ = 50
SHADOW_INTERVAL_S = 6.0
START_NS = 1_700_000_000 * NANOSECONDS
QUEUED_FRAMES = 4

Progress = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class DriveConfig:
    """What a drive depends on; the same values give the same messages."""

    seed: int = setting(0, 'Another seed is another town and drive.', minimum=0, maximum=2**31)
    length_m: float = setting(
        80.0, 'Length of the street once around.', unit='m', minimum=MIN_LENGTH_M,
        maximum=MAX_LENGTH_M,
    )
    laps: float = setting(2.0, 'Times around the street.', minimum=0.1, maximum=100.0)
    reverse: bool = setting(True, 'Then turn around and drive a third of the street back.')
    light: str = setting('changing', 'How the light behaves over the drive.', choices=LIGHTS)
    rate_hz: float = setting(10.0, 'Images per second.', unit='Hz', minimum=0.5, maximum=60.0)
    drift: float = setting(
        2.0, 'Drift of the odometry in percent of the distance.', unit='%', minimum=0.0,
        maximum=20.0,
    )
    raw: bool = setting(False, 'Write raw rgb8 images instead of JPEG.')
    jpeg_quality: int = setting(75, 'Quality of the JPEG images.', minimum=10, maximum=100)


@dataclass(frozen=True)
class DriveSummary:
    """What was written.

    :param drift: measured drift of the odometry in percent of the distance.
    """

    path: Path
    images: int
    duration_s: float
    travelled_m: float
    drift: float
    size_bytes: int
    wall_s: float


@dataclass(frozen=True)
class Shot:
    """One finished image with depth.

    :param image: (H, W, 3) uint8 RGB.
    :param encoded: JPEG bytes, or the image itself for a raw bag.
    :param depth_mm: (H, W) uint16.
    """

    stamp_ns: int
    image: UInt8Array
    encoded: UInt8Array
    depth_mm: npt.NDArray[np.uint16]


def no_progress(iterable: Iterable[Any], total: Optional[int] = None, unit: str = '',
                description: str = '') -> Iterable[Any]:
    """Return the iterable: the default where no progress is shown."""
    return iterable


def encode_jpeg(image_rgb: UInt8Array, quality: int) -> UInt8Array:
    """Return the bytes (N,) uint8 of a JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode('.jpg', cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    assert done
    return np.asarray(data).ravel()


class Drive:
    """Everything of one drive, before it is rendered.

    :raises ConfigError: a setting is out of its range.
    """

    def __init__(self, config: DriveConfig) -> None:
        validate(config)
        self.config = config
        self.camera: Camera = make_camera()
        self.street = make_street(np.random.default_rng((config.seed, 1)), config.length_m)
        self.course: Course = make_course(config.seed, self.street, config.laps, config.reverse)
        self.lights = LightCourse(config.light, config.seed)
        self.odometry_s = np.arange(0.0, self.course.duration_s, 1.0 / ODOMETRY_HZ)
        self.truth = self.course.planar(self.odometry_s)
        self.odometry: FloatArray = drifting(self.truth, config.drift, config.seed)
        steps = np.linalg.norm(np.diff(self.truth[:, :2], axis=0), axis=1)
        self.travelled_m = np.concatenate([[0.0], np.cumsum(steps)])
        # No image is newer than the odometry.
        self.image_s = np.arange(0.0, float(self.odometry_s[-1]), 1.0 / config.rate_hz)

    def stamp_ns(self, time_s: float) -> int:
        """Return the stamp of a time of the drive, exact to the microsecond."""
        return START_NS + round(time_s * 1e6) * 1000

    def camera_pose(self, time_s: float) -> FloatArray:
        """Return the true T_world_camera (4, 4) of the optical frame."""
        assert self.camera.T_base_camera is not None
        return self.course.pose(time_s) @ self.camera.T_base_camera

    def light(self, time_s: float) -> Light:
        """Return the light at a time of the drive."""
        return self.lights.at(time_s / self.course.duration_s)

    def shots(self) -> Iterator[Shot]:
        """Yield the images in order. The picture is drawn here, the sensor runs in a thread."""
        renderer = Renderer(make_world(self.config.seed, self.street), self.camera)
        sensor = Sensor(self.camera, self.config.seed)
        queue: deque[Future[Shot]] = deque()
        shadows_at = -np.inf
        try:
            with ThreadPoolExecutor(max_workers=1) as pool:
                for index, time_s in enumerate(self.image_s.tolist()):
                    light, due = self.light(time_s), time_s - shadows_at >= SHADOW_INTERVAL_S
                    renderer.set_light(light, cast_shadows=due)
                    shadows_at = time_s if due else shadows_at
                    picture, depth = renderer.render(self.camera_pose(time_s))
                    queue.append(pool.submit(self._finish, sensor, index, picture, depth))
                    if len(queue) >= QUEUED_FRAMES:
                        yield queue.popleft().result()
                while queue:
                    yield queue.popleft().result()
        finally:
            renderer.close()

    def _finish(
        self, sensor: Sensor, index: int, picture: UInt8Array, depth_m: Float32Array
    ) -> Shot:
        time_s = float(self.image_s[index])
        light = self.light(time_s)
        half = light.exposure_s / 2
        start, end = self.camera_pose(time_s - half), self.camera_pose(time_s + half)
        rng = np.random.default_rng((self.config.seed, 606, index))
        image = sensor.expose(picture, depth_m, inverse(start) @ end, light, rng)
        encoded = image if self.config.raw else encode_jpeg(image, self.config.jpeg_quality)
        return Shot(self.stamp_ns(time_s), image, encoded, sense_depth(depth_m))


def _write_odometry(bag: DriveBag, drive: Drive, index: int) -> None:
    """Write the true and the measured pose of one instant."""
    stamp_ns = drive.stamp_ns(float(drive.odometry_s[index]))
    travelled_m = float(drive.travelled_m[index])
    sigma = (0.01 + drive.config.drift / 100 * travelled_m, 0.005 + 0.0005 * travelled_m)
    for topic, parent, poses, spread in (
        ('odom', 'odom', drive.odometry, sigma),
        ('truth', 'world', drive.truth, (1e-3, 1e-3)),
    ):
        first = max(0, index - 1)
        step = increments(poses[first:first + 2])[0] * ODOMETRY_HZ
        bag.write_odometry(topic, stamp_ns, parent, BASE_FRAME, pose_from_planar(poses[index]),
                           float(step[0]), float(step[2]), spread)


def _write_messages(bag: DriveBag, drive: Drive, progress: Progress) -> None:
    """Render and write everything in the order of the stamps."""
    assert drive.camera.T_base_camera is not None
    bag.write_static_transform(
        START_NS, BASE_FRAME, drive.camera.frame_id, drive.camera.T_base_camera
    )
    written, count = 0, len(drive.image_s)
    for shot in progress(drive.shots(), total=count, unit='images', description='drive'):
        while written < len(drive.odometry_s) and (
            drive.stamp_ns(float(drive.odometry_s[written])) <= shot.stamp_ns
        ):
            _write_odometry(bag, drive, written)
            written += 1
        bag.write_camera_info(shot.stamp_ns)
        bag.write_image(shot.stamp_ns, shot.encoded)
        bag.write_depth(shot.stamp_ns, shot.depth_mm)
    for index in range(written, len(drive.odometry_s)):
        _write_odometry(bag, drive, index)


def simulate_drive(
    path: Path, config: DriveConfig, progress: Progress = no_progress
) -> DriveSummary:
    """Render a drive into a new bag.

    :param path: folder of the bag, which must not exist.
    :raises ConfigError: a setting is out of its range.
    :raises InputError: the folder exists or cannot be written.
    :raises RenderError: rendering cannot start on this machine.
    """
    started = time.monotonic()
    drive = Drive(config)
    require_rendering()
    with DriveBag(path, drive.camera, config.raw) as bag:
        try:
            _write_messages(bag, drive, progress)
        except OSError as error:
            raise InputError(f'cannot write output {str(path)!r}: {error.strerror}') from error
    return DriveSummary(
        path=path, images=len(drive.image_s), duration_s=drive.course.duration_s,
        travelled_m=drive.course.travelled_m, drift=drift_percent(drive.truth, drive.odometry),
        size_bytes=sum(f.stat().st_size for f in path.rglob('*') if f.is_file()),
        wall_s=time.monotonic() - started,
    )
