# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Makes new maps of old ones: salvage, merge and redescribe. The old ones are only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
from netvlad_ros.types import Camera, Float32Array, UInt8Array

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
    """What came of a map that was described anew; the rest was described by thumbnails."""

    from_source: int


def redescribe(
    folder: Path, target: Path, descriptor: Describes,
    images: Optional[Iterable[tuple[int, UInt8Array]]] = None,
    on_keyframe: Callable[[], object] = lambda: None,
) -> RedescribeReport:
    """Make a map anew with another model; ids, poses, places and closures stay.

    Keyframes that have no image, there or as a thumbnail, are left out.

    :param images: stamps, rising, and (H, W, 3) uint8 RGB images; thumbnails stand in for those
        that are missing, and by default for all. Their descriptors are held in memory.
    :raises MapError: none of the images is of the map, or it has none itself.
    """
    with (
        MapReader(folder) as reader,
        MapWriter(target, descriptor.model_id, descriptor.dim, reader.dtype) as writer,
    ):
        described = _Described(reader, descriptor, images, on_keyframe)
        writer.copy(reader, Selector(descriptor=described))
        writer.note('redescribe', {'from': folder.name, 'model_before': reader.model_id})
        before = reader.count('keyframes')
        if images is not None and not described.from_source:
            raise MapError(
                f'no image of the source has the stamp of a keyframe of {folder}: '
                f'{described.stamps()}'
            )
        if before and not writer.keyframes:
            raise MapError(
                f'{folder} has no thumbnails: --source names the recordings it was made of'
            )
        return RedescribeReport(before, writer.keyframes, described.from_source)


class _Described:
    """Descriptors of a map's keyframes by another model, computed in batches as they are asked."""

    def __init__(
        self, reader: MapReader, descriptor: Describes,
        images: Optional[Iterable[tuple[int, UInt8Array]]], on_keyframe: Callable[[], object],
    ) -> None:
        # A map of several recordings, or of a clock that was set, does not rise by id.
        order = 'id' if images is None else 'stamp_ns, id'
        self._pending = iter(
            reader.store.rows(f'SELECT id, stamp_ns FROM keyframes ORDER BY {order}')  # noqa: S608
        )
        self._reader, self._descriptor = reader, descriptor
        self._images = iter(images or ())
        self._next = next(self._images, None)
        self._first_ns = None if self._next is None else self._next[0]
        self._on_keyframe = on_keyframe
        self._done: dict[int, Optional[Float32Array]] = {}
        self.from_source = 0

    def __call__(self, row: Row) -> Optional[Float32Array]:
        while row['id'] not in self._done:
            self._next_batch()
        return self._done.pop(row['id'])

    def stamps(self) -> str:
        """Return when keyframes and images begin."""
        rows = self._reader.store.rows('SELECT min(stamp_ns) FROM keyframes')
        begin = 'there are none' if self._first_ns is None else f'at {self._first_ns / 1e9:.3f} s'
        return f'keyframes begin at {(rows[0][0] or 0) / 1e9:.3f} s, images: {begin}'

    def _image(self, keyframe_id: int, stamp_ns: int) -> Optional[UInt8Array]:
        while self._next is not None and self._next[0] < stamp_ns:
            self._next = next(self._images, None)
        if self._next is None or self._next[0] != stamp_ns:
            return _thumbnail_image(self._reader, keyframe_id)
        self.from_source += 1
        return self._next[1]

    def _next_batch(self) -> None:
        images: dict[int, UInt8Array] = {}
        for keyframe_id, stamp_ns in self._pending:
            self._on_keyframe()
            image = self._image(keyframe_id, stamp_ns)
            self._done[keyframe_id] = None
            if image is not None:
                images[keyframe_id] = image
            if len(images) == _DESCRIBE_BATCH:
                break
        if images:
            vectors = self._descriptor.compute(list(images.values()))
            self._done.update(zip(images, np.asarray(vectors, np.float32), strict=True))


def _thumbnail_image(reader: MapReader, keyframe_id: int) -> Optional[UInt8Array]:
    import cv2

    jpeg = reader.thumbnail(keyframe_id)
    if jpeg is None:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])
