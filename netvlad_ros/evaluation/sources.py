# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: a bag, a sequence folder, or a folder of images with TUM poses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

from netvlad_ros.errors import InputError
from netvlad_ros.evaluation.truth import GroundTruth
from netvlad_ros.types import Camera, Frame

BAG_SUFFIXES = ('.mcap', '.db3')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


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


class Source(Protocol):
    """A recording that can be replayed from its start.

    ``ground_truth`` and ``camera`` are complete once ``frames()`` has been read to its end.
    """

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    @property
    def path(self) -> Path:
        """Where it lies."""
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


def open_source(
    path: Path | str, topics: Topics | None = None, poses: Optional[Path | str] = None
) -> Source:
    """Return the recording at a path.

    :param path: rosbag2 folder or file, sequence folder with frames.csv, or image folder.
    :param poses: TUM file with the camera's true poses, for an image folder.
    :raises InputError: nothing at the path can be read; the message says what was expected.
    """
    from netvlad_ros.evaluation.source_folder import ImageFolderSource, SequenceSource

    path = Path(path)
    if not path.exists():
        raise InputError(f'{path} does not exist')
    if path.suffix in BAG_SUFFIXES or (path / 'metadata.yaml').is_file():
        from netvlad_ros.evaluation.source_bag import BagSource

        return BagSource(path, topics or Topics())
    if (path / 'frames.csv').is_file():
        return SequenceSource(path)
    if path.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
        if poses is None:
            raise InputError(f'{path} is a folder of images: give their true poses with --poses')
        return ImageFolderSource(path, Path(poses))
    raise InputError(
        f'{path} is not a recording: expected a rosbag2 (folder with metadata.yaml, .mcap or '
        '.db3), a folder with frames.csv, or a folder of images with --poses'
    )
