# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe map: what the robot has seen, durable and searchable while it grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
import threading
from types import TracebackType
from typing import Optional
import uuid

import numpy as np
import numpy.typing as npt

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import InputError, MapError
from netvlad_ros.keyframes.copying import write_copy
from netvlad_ros.keyframes.locking import WriterLock
from netvlad_ros.keyframes.maintenance import Maintenance
from netvlad_ros.keyframes.opening import MILVUS, open_store
from netvlad_ros.keyframes.places import Places
from netvlad_ros.keyframes.records import Entry, Exclusion, Neighbour, Session
from netvlad_ros.keyframes.store import Store, expanded, pack_pose, utc_now
from netvlad_ros.keyframes.vectors import LocalVectors, Vectors
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
# An add that falls into a sync of the file it writes to waits some ms.
FOLD_PAUSE_S = 2.0


class KeyframeMap:
    """Keyframes with their descriptors, sessions, places and closures.

    Open one with ``KeyframeMap.open``. All methods may be called from several threads; a search
    does not wait for an add. See ``netvlad_ros.keyframes.places`` for what a place is.
    """

    def __init__(
        self, store: Store, vectors: Vectors, config: MapConfig, lock: Optional[WriterLock],
        read_only: bool,
    ) -> None:
        self._store, self._vectors, self._config = store, vectors, config
        self._writer_lock, self.read_only = lock, read_only
        meta = store.meta()
        self.model_id, self.dim = meta['model_id'], int(meta['dim'])
        self._lock = threading.RLock()
        self._places = Places(store, int(config.visit_gap_s * _NS))
        self._sessions = store.sessions()
        self._cameras = store.cameras()
        self._session_number: Optional[int] = None
        self._closed = False
        self._threads: list[Maintenance] = []
        if not read_only:
            self._threads.append(Maintenance('map-files', [vectors.maintain]))
            self._threads.append(Maintenance('map-log', [self._fold], FOLD_PAUSE_S))
            self._threads.append(Maintenance('map-index', [vectors.improve]))
            self._wake()

    @classmethod
    def open(
        cls, path: str | Path | None, model_id: str, dim: int,
        config: MapConfig | None = None, read_only: bool = False,
    ) -> KeyframeMap:
        """Open the map in a folder and make it if it is absent.

        :param path: folder, maybe with ``~``; None or '' keeps the map in memory only;
            'milvus+file:NAME.db' and 'milvus+http(s)://host:port' are databases, see
            ``netvlad_ros.keyframes.milvus``.
        :param model_id: of the descriptors that will be added and searched.
        :param dim: their length.
        :param read_only: open an existing map for searching only.
        :raises MapError: another process writes to it, it is of another model, damaged or newer.
        """
        config = config or MapConfig()
        if str(path).startswith(MILVUS):
            from netvlad_ros.keyframes.milvus import open_milvus

            opened = open_milvus(str(path), model_id, dim, config, read_only)
            return cls(*opened, config, None, read_only)
        folder = expanded(path) if path else None
        store, lock = open_store(folder, model_id, dim, config, read_only)
        try:
            with store.snapshot():
                meta = store.meta()
                if meta['model_id'] != model_id or int(meta['dim']) != dim:
                    raise MapError(
                        f'{store.name} was made with {meta["model_id"]} ({meta["dim"]}-D), not '
                        f"with {model_id} ({dim}-D): make it anew with 'netvlad map redescribe'"
                    )
                vectors = LocalVectors(folder, store, config, read_only)
                return cls(store, vectors, config, lock, read_only)
        except BaseException:
            store.connection.close()
            if lock is not None:
                lock.release()
            raise

    def __enter__(self) -> KeyframeMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._vectors)

    def refresh(self) -> int:
        """Read what a writer in another process added since; returns the number of keyframes."""
        with self._lock:
            if not self.read_only:
                return 0
            before = len(self)
            with self._store.snapshot():
                self._sessions, self._cameras = self._store.sessions(), self._store.cameras()
                self._vectors.follow(self._store.entries(self._vectors.next_id - 1))
            return len(self) - before

    def _fold(self) -> None:
        """Move the log into the database, after the descriptors that it names.

        No add waits for this, so one may come between the two lines: a power cut then leaves a
        keyframe without its descriptor, as it may at any time under ``durability: normal``, and
        opening the map hides it. Under ``full`` each descriptor is synced before it is named.
        """
        self._vectors.sync()
        self._store.fold()

    def close(self) -> None:
        """Make everything durable and let go of the files; may be called twice.

        :raises MapError: the disk does not take it; the files are let go all the same.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # Outside the lock: a job in progress may wait for it.
        self._vectors.stop_improving()
        for thread in self._threads:
            thread.stop()
        with self._lock:
            try:
                if not self.read_only:
                    self._sync()
            finally:
                self._vectors.close()
                self._store.connection.close()
                if self._writer_lock is not None:
                    self._writer_lock.release()

    def settle(self) -> None:
        """Wait until the index is up to date; a large map may train it for minutes."""
        self._vectors.improve()

    def flush(self) -> None:
        """Wait until everything added so far would survive a power cut.

        :raises MapError: the disk does not take it, or the map is closed or read-only.
        """
        with self._writing():
            self._sync()

    def _sync(self) -> None:
        self._vectors.sync()
        self._store.sync()

    @property
    def damaged(self) -> list[int]:
        """Keyframes whose descriptors were found damaged when the map was opened."""
        return self._vectors.damaged

    @property
    def path(self) -> Optional[Path]:
        """The map's folder, None for a map in memory or in Milvus."""
        return None if self._store.path is None else self._store.path.parent

    def is_writer_of(self, path: str | Path) -> bool:
        """Return whether this map may write to the folder of this path."""
        own = None if self.read_only else self.path
        return own is not None and own.resolve() == expanded(path).resolve()

    @property
    def is_in_memory(self) -> bool:
        """Whether the map ends with this process; False for a folder and for Milvus."""
        return self._store.is_in_memory

    def save_copy(self, folder: str | Path) -> int:
        """Write everything to a new map in another folder, ids kept; returns the keyframes.

        Of a map in Milvus: the keyframes of this robot, and those of others that it has met.

        :param folder: that does not exist yet, maybe with ``~``.
        :raises MapError: the folder exists already or cannot be written.
        """
        folder = expanded(folder)
        with self._lock, self._store.snapshot():
            self.refresh()
            try:
                return write_copy(self._store, self._vectors, folder)
            except OSError as error:
                raise MapError(f'cannot write a map to {folder}: {error}') from error

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
            number = self._store.next_number('sessions')
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
        number = self._store.next_number('cameras')
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
            session = self._sessions[number].uuid
            keyframe_id = self._vectors.next_id
            entry = Entry(keyframe_id, frame.stamp_ns, session, frame.camera.name)
            checksum = self._vectors.write(entry, vector)
            if self._config.durability == 'full':
                self._vectors.sync()
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
            self._vectors.publish(entry)
            self._wake()
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
        return self._vectors.read(ids)

    def thumbnail(self, keyframe_id: int) -> Optional[bytes]:
        """Return the JPEG of a keyframe, None if none was stored."""
        with self._lock:
            self._check_known(keyframe_id)
            return self._store.thumbnail(keyframe_id)

    def camera(self, keyframe_id: int) -> Camera:
        """Return the camera that took a keyframe."""
        with self._lock:
            self._check_known(keyframe_id)
            sql = 'SELECT camera_id FROM keyframes WHERE id = ?'
            number = self._store.rows(sql, keyframe_id)[0][0]
            if number not in self._cameras:  # of a keyframe that another robot made meanwhile
                self._cameras = self._store.cameras()
            return self._cameras[number][1]

    def _check_known(self, keyframe_id: int) -> None:
        if keyframe_id not in self._vectors:
            raise MapError(f'keyframe {keyframe_id!r} is not in {self._store.name}')

    # Search

    def search(
        self, descriptor: npt.NDArray[np.float32], k: int, exclude: Optional[Exclusion] = None
    ) -> list[Neighbour]:
        """Return up to ``k`` keyframes by falling similarity, ties by id.

        :param descriptor: (D,) float32 of unit length.
        :param exclude: keyframes that are not looked at; the result is the best of the others.
        """
        return self._vectors.search(self._checked(descriptor), k, exclude)

    # Closures and places

    def add_closures(self, closures: Sequence[LoopClosure]) -> None:
        """Store closures, all or none; their status may merge or split places."""
        with self._writing(), self._store.transaction():
            for closure in closures:
                self._check_known(closure.query.id)
                self._check_known(closure.match.id)
                self._store.put_closure(closure)
            self._places.apply(closures)
            self._wake()

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
            **self._vectors.stats(),
        }

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._check_writable()
            yield

    def _wake(self) -> None:
        for thread in self._threads:
            thread.wake()

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
