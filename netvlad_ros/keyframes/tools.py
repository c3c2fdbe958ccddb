# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Makes new maps of old ones: salvage, merge and redescribe. The old ones are only read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
import itertools
from pathlib import Path
from typing import Optional, Protocol
import uuid

import numpy as np

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes.damaged import DamagedReader
from netvlad_ros.keyframes.places import Places
from netvlad_ros.keyframes.reader import MapReader, Row
from netvlad_ros.keyframes.records import Session
from netvlad_ros.keyframes.store import Store
from netvlad_ros.keyframes.verify import VerifyReport
from netvlad_ros.keyframes.writer import MapWriter, Selector
from netvlad_ros.types import Camera, Float32Array, Frame, UInt8Array

_DESCRIBE_BATCH = 16


@dataclass(frozen=True)
class CopyReport:
    """How many keyframes went from the old maps into the new one."""

    keyframes_before: int
    keyframes_after: int

    @property
    def lost(self) -> int:
        """Keyframes that are not in the new map."""
        return self.keyframes_before - self.keyframes_after


def salvage(folder: Path, target: Path, report: VerifyReport) -> CopyReport:
    """Copy all that is sound; ids stay as they are.

    A keyframe is sound if its row and its descriptor are. A damaged thumbnail or closure is left
    out alone. A lost session gets a new UUID, a lost camera has no calibration, and a lost place
    is made anew from its keyframes.

    :param report: of ``verify`` on the same folder.
    :raises MapError: the target exists already, or the database cannot be opened at all.
    """
    lost = report.lost_keyframes
    with (
        DamagedReader(folder) as reader,
        MapWriter(target, reader.model_id, reader.dim, reader.dtype) as writer,
    ):

        def descriptor(row: Row) -> Optional[Float32Array]:
            return None if row['id'] in lost else reader.descriptor(row['id'])

        writer.copy(reader, Selector(descriptor=descriptor))
        with writer.store.transaction():
            _restore_lost(writer.store, reader.model_id)
        writer.note('salvage', {'from': folder.name, 'faults': len(report.faults)})
        return CopyReport(report.records['keyframes'], writer.keyframes)


def _restore_lost(store: Store, model_id: str) -> None:
    """Make rows anew that keyframes name and that are lost."""
    for (number,) in store.rows(
        'SELECT session_id FROM keyframes UNION SELECT session_id FROM cameras '
        'EXCEPT SELECT id FROM sessions'
    ):
        session = Session(str(uuid.uuid4()), f'salvaged session {number}', model_id, created='')
        store.put_session(number, session)
    for number, session_number in store.rows(
        'SELECT camera_id, session_id FROM keyframes '
        'WHERE camera_id NOT IN (SELECT id FROM cameras) GROUP BY camera_id'
    ):
        store.put_camera(number, session_number, Camera())
    Places(store, int(MapConfig().visit_gap_s * 1e9)).restore_lost()


def merge(folders: Sequence[Path], target: Path) -> CopyReport:
    """Unite maps of one model; the first keeps its ids, those of the others are counted on.

    Places of different maps stay apart until a closure between them is verified.

    :raises MapError: the maps are of different models, or share a session.
    """
    readers: list[MapReader] = []
    try:
        readers = [MapReader(folder) for folder in folders]
        first = readers[0]
        for reader in readers[1:]:
            if (reader.model_id, reader.dim) != (first.model_id, first.dim):
                raise MapError(
                    f'{reader.folder} was made with {reader.model_id}, {first.folder} with '
                    f"{first.model_id}: bring them to one model with 'netvlad map redescribe'"
                )
        dtype = 'float32' if any(r.dtype == 'float32' for r in readers) else 'float16'
        with MapWriter(target, first.model_id, first.dim, dtype) as writer:
            for reader in readers:
                writer.copy(reader)
            writer.note('merge', {'from': [reader.folder.name for reader in readers]})
            return CopyReport(sum(r.count('keyframes') for r in readers), writer.keyframes)
    finally:
        for reader in readers:
            reader.store.connection.close()


class Describes(Protocol):
    """What redescribe needs of a descriptor."""

    @property
    def model_id(self) -> str:
        """Name and hash of the model."""

    @property
    def dim(self) -> int:
        """Length of a descriptor."""

    def compute(self, images_rgb: Sequence[UInt8Array]) -> Float32Array:
        """Return (N, dim) unit descriptors of N images (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class RedescribeReport(CopyReport):
    """As ``CopyReport``; keyframes that the source does not have are described by thumbnail."""

    from_source: int

    @property
    def from_thumbnails(self) -> int:
        """Keyframes whose stored thumbnail was described."""
        return self.keyframes_after - self.from_source


def redescribe(
    folder: Path, target: Path, descriptor: Describes,
    frames: Optional[Iterable[Frame]] = None,
    on_keyframe: Callable[[], object] = lambda: None,
) -> RedescribeReport:
    """Make a map anew with another model; ids, poses, places and closures stay.

    Keyframes with neither a frame nor a thumbnail are left out.

    :param frames: images of the map in any order, found by their stamps.
    :raises MapError: the frames are those of another map, or no keyframe has an image.
    """
    with (
        MapReader(folder) as reader,
        MapWriter(target, descriptor.model_id, descriptor.dim, reader.dtype) as writer,
    ):
        described = _Described(reader, descriptor, frames, on_keyframe)
        writer.copy(reader, Selector(descriptor=described))
        before = reader.count('keyframes')
        if before and not writer.keyframes:
            raise MapError(
                f'none of the {before} keyframes of {folder} has a thumbnail: give the recording '
                'that it was made of with --source'
            )
        writer.note('redescribe', {'from': folder.name, 'model_before': reader.model_id})
        return RedescribeReport(before, writer.keyframes, described.from_source)


class _Described:
    """Descriptors of a map's keyframes by another model, computed in batches as they are asked.

    Frames are read once, in their own order: a descriptor is kept until it is asked for.
    """

    def __init__(
        self, reader: MapReader, descriptor: Describes, frames: Optional[Iterable[Frame]],
        on_keyframe: Callable[[], object],
    ) -> None:
        self._reader, self._descriptor = reader, descriptor
        self._images = self._images_of(frames)
        self._on_keyframe = on_keyframe
        self._done: dict[int, Optional[Float32Array]] = {}
        self.from_source = 0

    def __call__(self, row: Row) -> Optional[Float32Array]:
        while row['id'] not in self._done:
            self._next_batch()
        return self._done.pop(row['id'])

    def _images_of(
        self, frames: Optional[Iterable[Frame]]
    ) -> Iterator[tuple[int, Optional[UInt8Array]]]:
        """Yield each id with its image: those of the frames, then the thumbnails of the others."""
        ids_at: dict[int, list[int]] = {}
        for keyframe_id, stamp_ns in self._reader.store.rows(
            'SELECT id, stamp_ns FROM keyframes ORDER BY id'
        ):
            ids_at.setdefault(stamp_ns, []).append(keyframe_id)
        made = _span(ids_at)
        read_ns: list[int] = []
        for frame in frames or ():
            read_ns.append(frame.stamp_ns)
            for keyframe_id in ids_at.pop(frame.stamp_ns, ()):
                self.from_source += 1
                yield keyframe_id, frame.image_rgb
            if not ids_at:
                return
        if frames is not None and not self.from_source:
            raise MapError(
                f'the source has no keyframe of {self._reader.folder}: its images are of '
                f'{_span(read_ns)}, the keyframes of {made}'
            )
        for keyframe_id in sorted(itertools.chain.from_iterable(ids_at.values())):
            yield keyframe_id, _thumbnail_image(self._reader, keyframe_id)

    def _next_batch(self) -> None:
        images: dict[int, UInt8Array] = {}
        for keyframe_id, image in self._images:
            self._on_keyframe()
            self._done[keyframe_id] = None
            if image is not None:
                images[keyframe_id] = image
            if len(images) == _DESCRIBE_BATCH:
                break
        if images:
            vectors = self._descriptor.compute(list(images.values()))
            self._done.update(zip(images, np.asarray(vectors, np.float32), strict=True))


def _span(stamps_ns: Collection[int]) -> str:
    """Return from when to when stamps go."""
    if not stamps_ns:
        return 'no time at all'
    return f'{min(stamps_ns) / 1e9:.3f} to {max(stamps_ns) / 1e9:.3f} s'


def _thumbnail_image(reader: MapReader, keyframe_id: int) -> Optional[UInt8Array]:
    import cv2

    jpeg = reader.thumbnail(keyframe_id)
    if jpeg is None:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])
