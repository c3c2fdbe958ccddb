# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: a bag, a sequence folder, or a folder of images with TUM poses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
import logging
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.truth import GroundTruth
from netvlad_ros.image_files import is_image
from netvlad_ros.loop_closure.geometry.camera_model import check_camera, is_calibrated
from netvlad_ros.types import Camera, Frame

_log = logging.getLogger(__name__)

BAG_SUFFIXES = ('.mcap', '.db3')
# The one reason in ``SkipCounts`` for which an image of the recording gives no frame.
DAMAGED_IMAGE = 'damaged image'


@dataclass(frozen=True)
class Topics:
    """Topics of a bag; an empty name takes the usual one, or the only one of its type."""

    image: str = ''
    camera_info: str = ''
    odom: str = ''
    depth: str = ''
    ground_truth: str = ''


@dataclass
class SkipCounts:
    """Input that could not be used, by reason; a damaged frame never ends an evaluation."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        """Count one, and keep the first example of each reason."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, example)


def usable_camera(camera: Camera, where: Path) -> Camera:
    """Return the camera, or without its calibration if that cannot be used; a warning says why."""
    if camera.K is None:
        return camera
    try:
        if not (np.isfinite(camera.K).all() and np.isfinite(camera.distortion).all()):
            raise InputError(f'not finite: K {camera.K.tolist()}, D {camera.distortion.tolist()}')
        if not is_calibrated(camera):
            raise InputError(f'no positive focal lengths: K {camera.K.tolist()}')
        check_camera(camera)
    except InputError as error:
        _log.warning('%s: the calibration is left out: %s', where, error)
        return replace(camera, K=None, distortion_model='', distortion=np.zeros(0))
    return camera


class Source(Protocol):
    """A recording that can be replayed from its start.

    ``ground_truth`` and ``camera`` are complete once ``frames()`` has been read to its end.
    """

    # For tables, and for the folder of its report.
    name: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def topics(self) -> Optional[Topics]:
        """The topics that are read, None where it is no bag."""
        ...

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Settings that judge this recording, as its ``sequence.yaml`` gives them."""
        ...

    @property
    def camera(self) -> Camera:
        """The camera that took the frames."""
        ...

    @property
    def ground_truth(self) -> GroundTruth:
        """True poses or listed revisits."""
        ...

    @property
    def skipped(self) -> SkipCounts:
        """What the last reading had to leave out."""
        ...

    @property
    def frame_count(self) -> int:
        """Number of images in the recording, damaged ones included."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the order of the recording."""
        ...


def name_apart(sources: Sequence[Source]) -> None:
    """Name those that have one name by the shortest ends of their paths that differ.

    :raises InputError: one recording is given twice.
    """
    for name, count in Counter(source.name for source in sources).items():
        alike = [source for source in sources if source.name == name]
        # Without the root: a name is also the folder of a report below the output folder.
        parts = [source.path.resolve().parts[1:] for source in alike]
        if len(set(parts)) < count:
            raise InputError(f'{alike[0].path} is given twice: give each recording once')
        length = 1
        while count > 1 and len({part[-length:] for part in parts}) < count:
            length += 1
        for source, part in zip(alike, parts, strict=True):
            source.name = name if count == 1 else '/'.join(part[-length:])


def is_bag(path: Path) -> bool:
    """Return whether a path is a rosbag2."""
    return path.suffix.lower() in BAG_SUFFIXES or (path / 'metadata.yaml').is_file()


def is_recording(path: Path) -> bool:
    """Return whether a path is a rosbag2 or a folder with frames.csv."""
    return is_bag(path) or (path / 'frames.csv').is_file()


def open_source(
    path: Path | str,
    topics: Topics | None = None,
    poses: Optional[Path | str] = None,
    image_is_rectified: bool = False,
) -> Source:
    """Return the recording at a path.

    :param path: rosbag2 folder or file, sequence folder with frames.csv, or image folder.
    :param poses: TUM file with true poses; goes before those that the recording holds.
    :param image_is_rectified: those of a bag are, as the node's parameter of this name says.
    :raises InputError: nothing at the path can be read; the message says what was expected.
    """
    from netvlad_ros.evaluation.source_folder import (
        ImageFolderSource,
        SequenceSource,
        read_tum,
    )

    path = Path(path)
    if not path.exists():
        raise InputError(f'{path} does not exist')
    track = None if poses is None else read_tum(Path(poses))
    if is_bag(path):
        from netvlad_ros.evaluation.source_bag import BagSource

        return BagSource(path, topics or Topics(), track, image_is_rectified)
    if is_recording(path):
        return SequenceSource(path, track)
    if path.is_dir() and any(map(is_image, path.iterdir())):
        if track is None:
            raise InputError(
                f'{path} is a folder of images without frames.csv, which only netvlad evaluate '
                'takes: give their true poses with --poses'
            )
        return ImageFolderSource(path, track)
    raise InputError(
        f'{path} is not a recording: expected a rosbag2 (folder with metadata.yaml, .mcap or '
        '.db3), a folder with frames.csv or, for netvlad evaluate, a folder of images with --poses'
    )
