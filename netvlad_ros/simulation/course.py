# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The robot's way: laps around the street, a stop, a turn on the spot and a stretch back.

The robot drives on the right of the street, each lap a little to the side of the last one. After
the last lap it stops, turns around and drives a third of the street in the reverse direction, now
on the other side of it.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
from scipy.ndimage import gaussian_filter1d

from netvlad_ros.errors import ConfigError
from netvlad_ros.simulation.layout import Street, edges
from netvlad_ros.types import FloatArray

STEP_M = 0.05
RATE_HZ = 200
MAX_SPEED_MPS = 2.5
MAX_ACCELERATION_MPS2 = 0.9
MAX_YAW_RATE_RADPS = 0.75
STOP_S = 3.0
REVERSE_SHARE = 1.0 / 3.0
START_STOP_S = 1.0


@dataclass(frozen=True)
class Course:
    """A planar drive, sampled at ``RATE_HZ``.

    :param time_s: (N,) seconds from the start.
    :param xy: (N, 2) metres of base_link in the world frame.
    :param yaw_rad: (N,) unwrapped heading.
    :param along_m: (N,) place along the centre line from its start, growing over all laps and
        falling on the way back.
    """

    time_s: FloatArray
    xy: FloatArray
    yaw_rad: FloatArray
    along_m: FloatArray

    @property
    def duration_s(self) -> float:
        """Time of the last sample."""
        return float(self.time_s[-1])

    @property
    def travelled_m(self) -> float:
        """Length of the driven way."""
        return float(np.linalg.norm(np.diff(self.xy, axis=0), axis=1).sum())

    def planar(self, times_s: FloatArray) -> FloatArray:
        """Return (N, 3) of x, y in metres and unwrapped yaw in radians at the given times."""
        columns = (self.xy[:, 0], self.xy[:, 1], self.yaw_rad)
        return np.stack([np.interp(times_s, self.time_s, c) for c in columns], axis=1)

    def pose(self, time_s: float) -> FloatArray:
        """Return T_world_base (4, 4) at a time; before the start and after the end it stands."""
        return pose_from_planar(self.planar(np.array([time_s]))[0])


def pose_from_planar(xy_yaw: FloatArray) -> FloatArray:
    """Return (4, 4) of x, y in metres and yaw in radians."""
    c, s = math.cos(xy_yaw[2]), math.sin(xy_yaw[2])
    T = np.eye(4)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:2, 3] = xy_yaw[:2]
    return T


def _smooth_centre(street: Street) -> FloatArray:
    """Return (N, 2) points every ``STEP_M`` once around, corners rounded."""
    corners = street.centre_xy
    sides = np.linalg.norm(edges(corners), axis=1)
    marks = np.concatenate([[0.0], np.cumsum(sides)])
    closed = np.concatenate([corners, corners[:1]])
    count = int(marks[-1] / STEP_M)
    # The course starts in the middle of a side, where the robot looks along the street.
    at = (np.arange(count) * STEP_M + sides[0] / 2) % marks[-1]
    points = np.stack([np.interp(at, marks, closed[:, i]) for i in range(2)], axis=1)
    sigma = 0.42 * street.half_width_m / STEP_M
    return np.asarray(gaussian_filter1d(points, sigma, axis=0, mode='wrap'))


def _offsets_m(rng: np.random.Generator, along_m: FloatArray, lap_m: float, lane_m: float
               ) -> FloatArray:
    """Return the distance to the right of the centre line: another one each lap, and it wavers."""
    laps = int(np.ceil(along_m.max() / lap_m)) + 2
    per_lap = lane_m + np.where(np.arange(laps) % 2, 1, -1) * rng.uniform(0.15, 0.3, laps)
    base = np.interp(along_m, (np.arange(laps) + 0.5) * lap_m, per_lap)
    waver = 0.12 * np.sin(2 * math.pi * along_m / rng.uniform(17, 29) + rng.uniform(0, 6.28))
    return np.asarray(base + waver)


def _track(
    centre_xy: FloatArray, along_m: FloatArray, offsets_m: FloatArray
) -> FloatArray:
    """Return (N, 2) points beside the centre line, positive offsets to its right."""
    count = len(centre_xy)
    index = np.round(along_m / STEP_M).astype(int) % count
    tangent = np.roll(centre_xy, -1, axis=0) - np.roll(centre_xy, 1, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    right = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)[index]
    track = centre_xy[index] + right * offsets_m[:, None]
    return np.asarray(gaussian_filter1d(track, 0.35 / STEP_M, axis=0, mode='nearest'))


def _timed(xy: FloatArray, along_m: FloatArray, stops_at: tuple[int, ...]) -> Course:
    """Return the drive along a track from rest to rest, slower in curves, resting at stops."""
    step = np.linalg.norm(np.diff(xy, axis=0), axis=1)
    heading = np.unwrap(np.arctan2(np.diff(xy[:, 1]), np.diff(xy[:, 0])))
    heading = np.append(heading, heading[-1])
    heading = np.asarray(gaussian_filter1d(heading, 0.2 / STEP_M, mode='nearest'))
    travelled = np.concatenate([[0.0], np.cumsum(np.maximum(step, 1e-6))])
    curvature = np.abs(np.gradient(heading, travelled))
    wish = MAX_SPEED_MPS * (1.0 - 0.1 * (1 + np.sin(travelled / 9.0)))
    speed = np.minimum(wish, MAX_YAW_RATE_RADPS / np.maximum(curvature, 1e-6))
    crawl = 0.05
    for i in (0, len(xy) - 1, *stops_at):
        speed[i] = crawl
    for i in range(1, len(xy)):
        limit = math.sqrt(speed[i - 1] ** 2 + 2 * MAX_ACCELERATION_MPS2 * step[i - 1])
        speed[i] = min(speed[i], limit)
    for i in range(len(xy) - 2, -1, -1):
        limit = math.sqrt(speed[i + 1] ** 2 + 2 * MAX_ACCELERATION_MPS2 * step[i])
        speed[i] = min(speed[i], limit)
    times = np.concatenate([[0.0], np.cumsum(step / (0.5 * (speed[1:] + speed[:-1])))])
    columns = [times, xy[:, 0], xy[:, 1], heading, along_m]
    for i in sorted(stops_at, reverse=True):
        columns = [np.insert(c, i + 1, c[i]) for c in columns]
        columns[0][i + 1:] += STOP_S
    grid = np.arange(0.0, columns[0][-1] + 1.0 / RATE_HZ, 1.0 / RATE_HZ)
    x, y, yaw, along = (np.interp(grid, columns[0], c) for c in columns[1:])
    return Course(grid, np.stack([x, y], axis=1), yaw, along)


def _standing(
    from_xy: FloatArray, to_xy: FloatArray, yaw_rad: FloatArray, along_m: float
) -> Course:
    """Return a stretch in place, but for millimetres, while the heading follows ``yaw_rad``."""
    n = len(yaw_rad)
    xy = from_xy + np.linspace(0.0, 1.0, n)[:, None] * (to_xy - from_xy)
    return Course(np.arange(n) / RATE_HZ, xy, yaw_rad, np.full(n, along_m))


def _joined(parts: list[Course]) -> Course:
    """Return the parts one after another, with the heading continuous."""
    time, yaw, out = 0.0, float(parts[0].yaw_rad[0]), []
    for part in parts:
        shift = 2 * math.pi * round((yaw - float(part.yaw_rad[0])) / (2 * math.pi))
        out.append(Course(part.time_s + time, part.xy, part.yaw_rad + shift, part.along_m))
        time, yaw = out[-1].duration_s + 1.0 / RATE_HZ, float(out[-1].yaw_rad[-1])
    return Course(*(np.concatenate([getattr(p, name) for p in out])
                    for name in ('time_s', 'xy', 'yaw_rad', 'along_m')))


def make_course(seed: int, street: Street, laps: float, reverse: bool = True) -> Course:
    """Return the drive of a seed.

    :param laps: times around the street.
    :param reverse: also turn around and drive a third of the street back.
    :raises ConfigError: less than a tenth of a lap.
    """
    if not 0.1 <= laps <= 100.0:
        raise ConfigError(f'laps is {laps!r}, allowed: 0.1 to 100')
    rng = np.random.default_rng((seed, 303))
    centre = _smooth_centre(street)
    lap_m, lane_m = len(centre) * STEP_M, 0.15 * street.half_width_m
    along = np.arange(0.0, laps * lap_m, STEP_M)
    offsets = _offsets_m(rng, along, lap_m, lane_m)
    stop = int(len(along) * rng.uniform(0.25, 0.4))
    there = _timed(_track(centre, along, offsets), along, (stop,))
    first_xy, first_yaw = there.xy[0], np.full(int(START_STOP_S * RATE_HZ), there.yaw_rad[0])
    start = _standing(first_xy, first_xy, first_yaw, 0.0)
    parts = [start, there]
    if reverse:
        back = along[-1] - np.arange(0.0, REVERSE_SHARE * lap_m, STEP_M)
        # It leaves from where it turned, on the lane of the way there, and crosses over.
        blend = np.clip(np.arange(len(back)) * STEP_M / 4.0, 0.0, 1.0)
        blend = blend * blend * (3 - 2 * blend)
        side = offsets[-1] * (1 - blend) - lane_m * blend
        way = _timed(_track(centre, back, side), back, ())
        way_yaw, yaw0 = float(way.yaw_rad[0]), float(there.yaw_rad[-1])
        turn = (way_yaw - yaw0) % (2 * math.pi)
        ease = 0.5 - 0.5 * np.cos(np.linspace(0, math.pi, int(5.0 * RATE_HZ)))
        turning = _standing(there.xy[-1], way.xy[0], yaw0 + turn * ease, float(along[-1]))
        parts += [turning, way]
    return _joined(parts)
