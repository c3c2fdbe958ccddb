# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A made-up dataset in the Pittsburgh layout: places in many towns, seen at different times.

Each place has a database panorama (views all around, in one light). Queries are taken anywhere
along the street, in other light, each with its own heading, pitch and roll. Positions carry the
error of a GPS.
The splits share no town. Files::

    FOLDER/train.mat val.mat test.mat                    dbStruct, image names relative to FOLDER
    FOLDER/images/SPLIT/database/@EAST@NORTH@...@.jpg
    FOLDER/images/SPLIT/queries/@EAST@NORTH@...@.jpg
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from pathlib import Path
import time

import numpy as np
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from netvlad_ros.config import setting, validate
from netvlad_ros.errors import InputError
from netvlad_ros.geometry import inverse
from netvlad_ros.simulation.camera import R_BODY_OPTICAL, make_camera
from netvlad_ros.simulation.drive import Progress, encode_jpeg, no_progress
from netvlad_ros.simulation.exposure import Sensor
from netvlad_ros.simulation.layout import Street, edges, left_normals, make_street
from netvlad_ros.simulation.light import Light, LightCourse
from netvlad_ros.simulation.renderer import Renderer, require_rendering
from netvlad_ros.simulation.world import make_world
from netvlad_ros.types import FloatArray, UInt8Array

SPLITS = ('train', 'val', 'test')
VALIDATION_SHARE = 0.25
POSITIVE_M, NON_TRIVIAL_POSITIVE_M = 25, 10
PLACE_SPACING_M = 12.0
TOWN_SPACING_M = 2000.0
UTM_ORIGIN_M = (580_000.0, 4_470_000.0)
UTM_ZONE = ('17', 'T')
CAMERA_HEIGHT_M = 1.6
JPEG_QUALITY = 88
WALKING_MPS = 1.5


@dataclass(frozen=True)
class PlacesConfig:
    """What a dataset depends on; the same values give the same files."""

    places: int = setting(100, 'Places of the training split; val and test have a quarter each.',
                          minimum=1, maximum=100_000)
    seed: int = setting(0, 'Another seed is another set of towns.', minimum=0, maximum=2**31)
    headings: int = setting(8, 'Database views around each place.', minimum=1, maximum=36)
    queries: int = setting(4, 'Query views of each place.', minimum=1, maximum=100)
    gps_noise_m: float = setting(1.5, 'Standard deviation of the noted positions.', unit='m',
                                 minimum=0.0, maximum=10.0)
    town_m: float = setting(
        130.0, "Typical length of a town's street; shorter streets are more towns and variety.",
        unit='m', minimum=60.0, maximum=400.0,
    )


@dataclass(frozen=True)
class PlacesSummary:
    """What was written; counts are by split."""

    path: Path
    towns: dict[str, int]
    places: dict[str, int]
    database_images: dict[str, int]
    query_images: dict[str, int]
    wall_s: float


@dataclass(frozen=True)
class View:
    """One view to take.

    :param true_xy: metres in the town; ``utm_xy`` is the noted position, with the GPS's error.
    """

    group: str
    place: int
    number: int
    true_xy: FloatArray
    utm_xy: FloatArray
    heading_deg: float
    pitch_deg: float
    roll_deg: float

    @property
    def T_world_camera(self) -> FloatArray:  # noqa: N802
        """Pose (4, 4) of the optical frame."""
        # Headings run clockwise from north, yaw counter-clockwise from east.
        yaw_deg = 90.0 - self.heading_deg
        body = Rotation.from_euler('ZYX', [yaw_deg, -self.pitch_deg, self.roll_deg], degrees=True)
        T = np.eye(4)
        T[:3, :3] = body.as_matrix() @ R_BODY_OPTICAL
        T[:3, 3] = [self.true_xy[0], self.true_xy[1], CAMERA_HEIGHT_M]
        return T


def image_name(view: View, light: str) -> str:
    """Return the file name with the fields of the deep-visual-geo-localization datasets.

    They are east, north, zone, letter, latitude, longitude, panorama, tile, heading, pitch, roll,
    height, time stamp and note, each after an ``@``; unknown ones stay empty.
    """
    east, north = view.utm_xy
    fields = (
        f'{east:010.2f}', f'{north:010.2f}', *UTM_ZONE, '', '', f'{view.place:06d}',
        f'{view.number:02d}', f'{view.heading_deg:03.0f}', f'{view.pitch_deg:03.0f}', '', '', '',
        light,
    )
    return '@' + '@'.join(fields) + '@.jpg'


def town_seed(seed: int, split: str, town: int) -> int:
    """Return the seed of a town: different for each dataset, split and number."""
    return int(np.random.SeedSequence((seed, 707, SPLITS.index(split), town)).generate_state(1)[0])


def make_place_street(rng: np.random.Generator, typical_m: float) -> Street:
    """Return a street of random length and width."""
    street = make_street(rng, typical_m * float(rng.uniform(0.7, 1.3)))
    return Street(street.centre_xy, street.half_width_m * float(rng.uniform(0.75, 1.05)))


def place_marks(street: Street, rng: np.random.Generator) -> FloatArray:
    """Return (N,) metres along the street's centre line at which its places lie."""
    first_m = rng.uniform(0, PLACE_SPACING_M)
    return np.arange(first_m, street.length_m - 1.0, PLACE_SPACING_M)


def street_point(street: Street, mark_m: float, rng: np.random.Generator) -> FloatArray:
    """Return (2,) metres: a point at a mark of the street, on either side of its centre line."""
    corners, along = street.centre_xy, edges(street.centre_xy)
    sides = np.linalg.norm(along, axis=1)
    starts = np.concatenate([[0.0], np.cumsum(sides)])
    mark_m = mark_m % street.length_m
    i = min(int(np.searchsorted(starts, mark_m, side='right')) - 1, len(corners) - 1)
    across = left_normals(corners)[i] * rng.uniform(-0.3, 0.3) * street.half_width_m
    return np.asarray(corners[i] + (mark_m - starts[i]) * along[i] / sides[i] + across)


class _Town:
    """The places of one town and the views of them."""

    def __init__(self, config: PlacesConfig, split: str, town: int, first_place: int) -> None:
        self._config, self._first = config, first_place
        self.seed = town_seed(config.seed, split, town)
        self._rng = np.random.default_rng((self.seed, 808))
        self.street = make_place_street(np.random.default_rng((self.seed, 1)), config.town_m)
        self.marks_m = place_marks(self.street, self._rng)
        self._places = [street_point(self.street, mark_m, self._rng) for mark_m in self.marks_m]
        column, row = town % 100, town // 100 + 100 * SPLITS.index(split)
        self._origin = np.array(UTM_ORIGIN_M) + TOWN_SPACING_M * np.array([column, row])

    def views(self, visit: int, count: int) -> list[View]:
        """Return the views of one visit to the first ``count`` places; visit 0 is the database."""
        views: list[View] = []
        for k, xy in enumerate(self._places[:count]):
            if visit == 0:
                noted = self._noted(xy)
                start = self._rng.uniform(0, 360)
                views += [
                    View('database', self._first + k, i, xy, noted,
                         (start + 360.0 * i / self._config.headings) % 360.0, 4.0, 0.0)
                    for i in range(self._config.headings)
                ]
                continue
            aside_m = self._rng.uniform(-0.5, 0.5) * PLACE_SPACING_M
            near = street_point(self.street, self.marks_m[k] + aside_m, self._rng)
            pitch, roll = self._rng.uniform(-2, 14), self._rng.normal(0, 1.5)
            heading = float(self._rng.uniform(0, 360))
            views.append(View('queries', self._first + k, visit - 1, near, self._noted(near),
                              heading, float(pitch), float(roll)))
        return views

    def _noted(self, xy: FloatArray) -> FloatArray:
        noise = self._rng.normal(0.0, self._config.gps_noise_m, 2)
        return np.asarray(np.round(self._origin + xy + noise, 2))

    def light(self, visit: int) -> tuple[str, Light]:
        """Return the light of a visit and its name."""
        rng = np.random.default_rng((self.seed, 909, visit))
        kind = str(rng.choice(['day', 'overcast', 'evening', 'changing']))
        course = LightCourse(kind, int(rng.integers(2**31)))
        return kind, course.at(float(rng.uniform(0.0, 1.0)))


def _take(
    town: _Town, count: int, config: PlacesConfig
) -> Iterator[tuple[View, str, UInt8Array]]:
    """Yield every view of a town with the name of its light and its image (H, W, 3) uint8 RGB."""
    camera = make_camera()
    renderer = Renderer(make_world(town.seed, town.street), camera)
    sensor = Sensor(camera, town.seed)
    try:
        for visit in range(config.queries + 1):
            name, light = town.light(visit)
            renderer.set_light(light)
            for index, view in enumerate(town.views(visit, count)):
                rng = np.random.default_rng((town.seed, 606, visit, index))
                picture, depth_m = renderer.render(view.T_world_camera)
                motion = np.eye(4)
                motion[:3, 3] = rng.normal(0.0, WALKING_MPS * light.exposure_s / math.sqrt(3), 3)
                yield view, name, sensor.expose(picture, depth_m, inverse(motion), light, rng)
    finally:
        renderer.close()


def _write_struct(
    path: Path, split: str, images: dict[str, list[tuple[str, FloatArray]]]
) -> None:
    """Write a Pitts ``dbStruct`` with image names relative to the file's folder."""

    def names(group: str) -> np.ndarray[tuple[int, int], np.dtype[np.object_]]:
        out = np.empty((len(images[group]), 1), dtype=object)
        out[:, 0] = [name for name, _ in images[group]]
        return out

    database, queries = 'database', 'queries'
    savemat(path, {'dbStruct': {
        'whichSet': split,
        'dbImageFns': names(database),
        'utmDb': np.array([utm for _, utm in images[database]]).T,
        'qImageFns': names(queries),
        'utmQ': np.array([utm for _, utm in images[queries]]).T,
        'numImages': np.int32(len(images[database])),
        'numQueries': np.int32(len(images[queries])),
        'posDistThr': np.int32(POSITIVE_M),
        'posDistSqThr': np.int32(POSITIVE_M**2),
        'nonTrivPosDistSqThr': np.int32(NON_TRIVIAL_POSITIVE_M**2),
    }}, oned_as='column')


def simulate_places(
    folder: Path, config: PlacesConfig, progress: Progress = no_progress
) -> PlacesSummary:
    """Render a dataset into a new folder.

    :raises ConfigError: a setting is out of its range.
    :raises InputError: the folder exists, cannot be written, or its path has an ``@``, which
        separates the fields of the image names.
    :raises RenderError: rendering cannot start on this machine.
    """
    started = time.monotonic()
    validate(config)
    if '@' in str(folder.resolve()):
        raise InputError(f'output {str(folder)!r} has an @ in its path, which readers split at')
    if folder.exists():
        raise InputError(f'output {str(folder)!r} exists; give a new name or remove it')
    require_rendering()
    quarter = max(1, round(config.places * VALIDATION_SHARE))
    places = {'train': config.places, 'val': quarter, 'test': quarter}
    counts: dict[str, dict[str, int]] = {'towns': {}, 'database': {}, 'queries': {}}
    try:
        for split in SPLITS:
            images: dict[str, list[tuple[str, FloatArray]]] = {'database': [], 'queries': []}
            for group in images:
                (folder / 'images' / split / group).mkdir(parents=True)
            total = places[split] * (config.headings + config.queries)
            views = _split_views(config, split, places[split], counts['towns'])
            for view, light, image in progress(views, total=total, unit='images',
                                               description=split):
                name = f'images/{split}/{view.group}/{image_name(view, light)}'
                (folder / name).write_bytes(encode_jpeg(image, JPEG_QUALITY).tobytes())
                images[view.group].append((name, view.utm_xy))
            _write_struct(folder / f'{split}.mat', split, images)
            for group, entries in images.items():
                counts[group][split] = len(entries)
    except OSError as error:
        raise InputError(f'cannot write output {str(folder)!r}: {error.strerror}') from error
    return PlacesSummary(folder, counts['towns'], places, counts['database'], counts['queries'],
                         time.monotonic() - started)


def _split_views(
    config: PlacesConfig, split: str, places: int, towns: dict[str, int]
) -> Iterator[tuple[View, str, UInt8Array]]:
    """Yield the views of one split, town by town, and note how many towns it took."""
    done, number = 0, 0
    while done < places:
        town = _Town(config, split, number, done)
        count = min(len(town.marks_m), places - done)
        yield from _take(town, count, config)
        done, number = done + count, number + 1
    towns[split] = number
