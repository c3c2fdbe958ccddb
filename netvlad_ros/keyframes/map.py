# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe map: what the robot has seen, durable and searchable while it grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import os
from pathlib import Path
import threading
from types import TracebackType
from typing import Optional
import uuid

import faiss
import numpy as np
import numpy.typing as npt

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import InputError, MapError
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.columns import Columns
from netvlad_ros.keyframes.exact_index import ExactIndex
from netvlad_ros.keyframes.opening import open_store
from netvlad_ros.keyframes.places import Places
from netvlad_ros.keyframes.records import Exclusion, Neighbour, Session
from netvlad_ros.keyframes.store import Store, pack_pose, utc_now
from netvlad_ros.types import (
    Camera,
    Float32Array,
    Frame,
    Keyframe,
    LoopClosure,
    PlaceVisit,
)

_UNIT_TOLERANCE = 1e-3  # float16 storage of a unit vector is off by less than 5e-4
_NS = 1_000_000_000


class KeyframeMap:
    """Keyframes with their descriptors, sessions, places and closures.

    Open one with ``KeyframeMap.open``. All methods may be called from several threads; a search
    does not wait for an add. See ``netvlad_ros.keyframes.places`` for what a place is.
    """

    def __init__(
        self, store: Store, blocks: DescriptorBlocks, config: MapConfig, read_only: bool,
    ) -> None:
        self._store, self._blocks, self._config = store, blocks, config
        self.read_only = read_only
        meta = store.meta()
        self.model_id, self.dim = meta['model_id'], int(meta['dim'])
        self._lock = threading.RLock()
        self._threads = config.threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(
            self._threads, 'map-search', initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._places = Places(store, int(config.visit_gap_s * _NS))
        self._sessions = store.sessions()
        self._cameras = store.cameras()
        self._session_number: Optional[int] = None
        self._columns = Columns()
        self._index = ExactIndex(blocks, self._pool, self._threads)
        self._load_rows()
        self._closed = False

    @classmethod
    def open(
        cls, path: str | Path | None, model_id: str, dim: int,
        config: MapConfig | None = None, read_only: bool = False,
    ) -> KeyframeMap:
        """Open the map in a folder and make it if it is absent.

        :param path: folder; None or '' keeps the map in memory only.
        :param model_id: of the descriptors that will be added and searched.
        :param dim: their length.
        :param read_only: open an existing map for searching only.
        :raises MapError: another process writes to it, it is of another model, damaged or newer.
        """
        config = config or MapConfig()
        folder = Path(path) if path else None
        store = open_store(folder, model_id, dim, config, read_only)
        meta = store.meta()
        if meta['model_id'] != model_id or int(meta['dim']) != dim:
            raise MapError(
                f'{store.name} was made with {meta["model_id"]} ({meta["dim"]}-D), not with '
                f"{model_id} ({dim}-D): make it anew with 'netvlad map redescribe'"
            )
        count = int(store.rows('SELECT COUNT(*) FROM keyframes')[0][0])
        blocks = DescriptorBlocks(
            folder, dim, meta['dtype'], count, 'read' if read_only else 'append',
            int(meta['rows_per_block']),
        )
        return cls(store, blocks, config, read_only)

    def __enter__(self) -> KeyframeMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._columns.count

    def _load_rows(self) -> None:
        for keyframe_id, stamp_ns, session, camera in self._store.rows(
            'SELECT id, stamp_ns, session_id, camera_id FROM keyframes ORDER BY id'
        ):
            self._columns.append(
                keyframe_id, stamp_ns, self._sessions[session].uuid, self._cameras[camera][1].name
            )
        self._index.load(self._columns.count)

    def close(self) -> None:
        """Make everything durable and let go of the files; may be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self.read_only:
                self._blocks.sync()
            self._blocks.close(self._columns.count)
            self._store.connection.close()
            self._pool.shutdown()

    def flush(self) -> None:
        """Wait until everything added so far would survive a power cut."""
        with self._writing():
            self._blocks.sync()
            self._store.rows('PRAGMA wal_checkpoint(FULL)')

    # Sessions

    @property
    def session(self) -> Optional[Session]:
        """The session that new keyframes belong to; None before the first."""
        return None if self._session_number is None else self._sessions[self._session_number]

    @property
    def sessions(self) -> list[Session]:
        """All sessions, the oldest first."""
        return [self._sessions[number] for number in sorted(self._sessions)]

    def begin_session(self, name: str = '', camera: Optional[Camera] = None) -> Session:
        """Begin a new run; keyframes added from now on belong to it."""
        session = Session(str(uuid.uuid4()), name, self.model_id, utc_now())
        with self._writing():
            number = max(self._sessions, default=0) + 1
            with self._store.transaction():
                self._store.put_session(number, session)
            self._sessions[number], self._session_number = session, number
            if camera is not None:
                with self._store.transaction():
                    self._camera_number(camera)
        return session

    def _camera_number(self, camera: Camera) -> int:
        """Return the number of a camera of this session, stored on first sight."""
        session = self._session_number
        assert session is not None
        for number, (owner, known) in self._cameras.items():
            if owner == session and known.name == camera.name and _same(known, camera):
                return number
        number = max(self._cameras, default=0) + 1
        self._store.put_camera(number, session, camera)
        self._cameras[number] = session, camera
        return number

    # Keyframes

    def add(
        self, frame: Frame, descriptor: npt.NDArray[np.float32],
        place_id: Optional[int] = None, thumbnail_jpeg: Optional[bytes] = None,
    ) -> tuple[Keyframe, PlaceVisit]:
        """Store a frame as a keyframe; it is durable when this returns.

        :param descriptor: (D,) float32 of unit length.
        :param place_id: the place it belongs to, None for a new place.
        :raises InputError: the descriptor does not fit the map or is not a unit vector.
        :raises MapError: it could not be stored; nothing of it was.
        """
        vector = self._checked(descriptor)
        with self._writing():
            if self._session_number is None:
                self.begin_session()
            number = self._session_number
            assert number is not None
            row = self._columns.count
            keyframe_id = int(self._columns.ids[row - 1]) + 1 if row else 0
            stored = self._blocks.encode(vector)
            checksum = self._blocks.write(row, keyframe_id, stored)
            if self._config.durability == 'full':
                self._blocks.sync()
            cameras = dict(self._cameras)
            try:
                with self._store.transaction():
                    camera = self._camera_number(frame.camera)
                    visit = self._places.join(place_id, keyframe_id, frame.stamp_ns, number)
                    self._store.put(
                        'keyframes', keyframe_id, frame.stamp_ns, number, camera, visit.place_id,
                        visit.place_id, pack_pose(frame.T_odom_base), checksum,
                    )
                    if thumbnail_jpeg is not None:
                        self._store.put('thumbnails', keyframe_id, thumbnail_jpeg)
            except BaseException:
                self._cameras = cameras
                raise
            self._index.append(row, stored)
            session = self._sessions[number].uuid
            self._columns.append(keyframe_id, frame.stamp_ns, session, frame.camera.name)
        keyframe = Keyframe(
            keyframe_id, frame.stamp_ns, session, frame.camera.name, visit.place_id,
            frame.T_odom_base,
        )
        return keyframe, visit

    def _checked(self, descriptor: npt.NDArray[np.float32]) -> Float32Array:
        vector = np.ascontiguousarray(descriptor, dtype=np.float32)
        if vector.shape != (self.dim,):
            raise InputError(f'descriptor has shape {vector.shape!r}, the map has ({self.dim},)')
        norm = float(np.linalg.norm(vector))
        if not abs(norm - 1.0) <= _UNIT_TOLERANCE:
            raise InputError(f'descriptor has length {norm:.6g}, expected 1')
        return vector

    def keyframe(self, keyframe_id: int) -> Keyframe:
        """Return a keyframe by its id.

        :raises MapError: the map does not have it.
        """
        with self._lock:
            keyframe = self._store.keyframe(keyframe_id)
        if keyframe is None:
            raise MapError(f'keyframe {keyframe_id!r} is not in {self._store.name}')
        return keyframe

    def keyframes(self, session: Optional[str] = None) -> list[Keyframe]:
        """Return all keyframes, or those of one session (UUID), ordered by id."""
        with self._lock:
            return self._store.keyframes(session)

    def descriptors(self, ids: Iterable[int]) -> Float32Array:
        """Return the stored descriptors of some keyframes as (N, D) float32.

        :raises MapError: the map does not have one of them.
        """
        return self._blocks.read(np.array([self._row(i) for i in ids], np.int64))

    def thumbnail(self, keyframe_id: int) -> Optional[bytes]:
        """Return the JPEG of a keyframe, None if none was stored."""
        self._row(keyframe_id)
        with self._lock:
            return self._store.thumbnail(keyframe_id)

    def camera(self, keyframe_id: int) -> Camera:
        """Return the camera that took a keyframe."""
        self._row(keyframe_id)
        with self._lock:
            sql = 'SELECT camera_id FROM keyframes WHERE id = ?'
            number = self._store.rows(sql, keyframe_id)[0][0]
            return self._cameras[number][1]

    def _row(self, keyframe_id: int) -> int:
        row = self._columns.row(keyframe_id)
        if row is None:
            raise MapError(f'keyframe {keyframe_id!r} is not in {self._store.name}')
        return row

    # Search

    def search(
        self, descriptor: npt.NDArray[np.float32], k: int, exclude: Optional[Exclusion] = None
    ) -> list[Neighbour]:
        """Return up to ``k`` keyframes by falling similarity, ties by id.

        :param descriptor: (D,) float32 of unit length.
        :param exclude: keyframes that are not looked at; the result is the best of the others.
        """
        vector = self._checked(descriptor)
        similarities, rows = self._index.search(vector, k, self._columns.select(exclude))
        ids = self._columns.ids[rows]
        return [
            Neighbour(keyframe_id, similarity)
            for keyframe_id, similarity in zip(
                ids.tolist(), similarities.tolist(), strict=True
            )
        ]

    # Closures and places

    def add_closures(self, closures: Sequence[LoopClosure]) -> None:
        """Store closures, all or none; their status may merge or split places."""
        with self._writing(), self._store.transaction():
            for closure in closures:
                self._row(closure.query.id)
                self._row(closure.match.id)
                self._store.put_closure(closure)
                self._places.apply(closure)

    def update_closure(self, closure: LoopClosure) -> None:
        """Replace the closure of the same query and match; it may merge or split places."""
        self.add_closures([closure])

    def closures(self, since_ns: int = 0) -> list[LoopClosure]:
        """Return the closures whose query's stamp is ``since_ns`` or later, by stamp and rank."""
        with self._lock:
            return self._store.closures(since_ns)

    def place(self, place_id: int) -> tuple[int, list[int], int]:
        """Return a place's current id, its keyframes and the number of visits."""
        with self._lock:
            place_id = self._places.resolve(place_id)
            sql = 'SELECT visits FROM places WHERE id = ?'
            visits = int(self._store.rows(sql, place_id)[0][0])
            return place_id, self._places.members(place_id), visits

    def stats(self) -> dict[str, object]:
        """Return size, index and storage, for diagnostics."""
        return {
            'keyframes': len(self),
            'sessions': len(self._sessions),
            'model_id': self.model_id,
            'dim': self.dim,
            'storage': self._store.name,
            'durability': self._config.durability,
            **self._index.stats(),
        }

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._check_writable()
            yield

    def _check_writable(self) -> None:
        if self._closed:
            raise MapError(f'{self._store.name} is closed')
        if self.read_only:
            raise MapError(f'{self._store.name} is open read-only, nothing can be stored')


def _same(a: Camera, b: Camera) -> bool:
    return a is b or (
        (a.frame_id, a.size_wh, a.distortion_model) == (b.frame_id, b.size_wh, b.distortion_model)
        and _equal(a.K, b.K) and _equal(a.distortion, b.distortion)
        and _equal(a.T_base_camera, b.T_base_camera)
    )


def _equal(a: Optional[npt.NDArray[np.float64]], b: Optional[npt.NDArray[np.float64]]) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
