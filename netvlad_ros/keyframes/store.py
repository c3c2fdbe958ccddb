# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The SQLite side of a map: keyframes, sessions, cameras, places, closures, thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
import json
import math
import os
from pathlib import Path
import sqlite3
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.block_file import explain_sync
from netvlad_ros.keyframes.records import Entry, Session
from netvlad_ros.types import (
    Camera,
    ClosureStatus,
    FloatArray,
    Keyframe,
    LoopClosure,
    RejectReason,
    TransformKind,
)

_KEYFRAME = (
    'SELECT k.id, k.stamp_ns, s.uuid, c.name, k.place_id, k.T_odom_base FROM keyframes k '
    'JOIN sessions s ON s.id = k.session_id JOIN cameras c ON c.id = k.camera_id '
)
_CHUNK = 50_000
_MEMORY = ':memory:'


def utc_now() -> str:
    """Return the wall clock as ISO 8601 UTC; for provenance only, never for data."""
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder; no shell does it on a launch line.

    :raises MapError: there is no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise MapError(f"{path}: there is no such user, write the path without '~'") from error


def connect(path: Optional[Path], mode: str) -> sqlite3.Connection:
    """Open a database (None in memory) in mode rwc, rw, ro or immutable, with ``row_crc``."""
    if path is None:
        connection = sqlite3.connect(_MEMORY, isolation_level=None, check_same_thread=False)
    else:
        suffix = 'mode=ro&immutable=1' if mode == 'immutable' else f'mode={mode}'
        connection = sqlite3.connect(
            f'{path.resolve().as_uri()}?{suffix}', uri=True, isolation_level=None,
            check_same_thread=False, timeout=10.0,
        )
    connection.create_function('row_crc', -1, schema.row_crc, deterministic=True)
    return connection


class Store:
    """Reads and writes rows. Writing happens inside ``with store.transaction():``."""

    def __init__(self, connection: sqlite3.Connection, path: Optional[Path]) -> None:
        self.connection, self.path = connection, path
        self.is_in_memory = path is None
        self.name = 'map in memory' if path is None else str(path.parent)
        self._inserts = {table: _insert(table) for table in schema.TABLES}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes, or nothing of it.

        :raises MapError: the disk is full or read-only, or the file is damaged.
        """
        try:
            self.connection.execute('BEGIN IMMEDIATE')
            try:
                yield
                self.connection.execute('COMMIT')
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute('ROLLBACK')
                raise
        except sqlite3.Error as error:
            raise MapError(explain(error, self.name)) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let the block read one state of the map, whatever another process stores meanwhile.

        Inside a snapshot or a transaction it does nothing.
        """
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute('BEGIN')
        try:
            yield
        finally:
            if self.connection.in_transaction:
                self.connection.execute('ROLLBACK')

    def next_number(self, table: str) -> int:
        """Return the next id that this writer gives in a table."""
        last = self.rows(f'SELECT MAX(id) FROM {table}')[0][0]  # noqa: S608
        return 0 if last is None else int(last) + 1

    def put(self, table: str, *values: object) -> None:
        """Insert or replace a row; values in the order of ``schema.columns``."""
        self.connection.execute(self._inserts[table], values)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        :raises MapError: the file is damaged.
        """
        try:
            return self.connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise MapError(explain(error, self.name)) from error

    def scan(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Yield all rows of a table by key, values in the order of ``schema.columns``.

        :raises sqlite3.Error: the table is damaged; rows before the damage were yielded.
        """
        keys = ', '.join(schema.TABLES[table][0])
        names = ', '.join(schema.columns(table))
        yield from self.connection.execute(f'SELECT {names} FROM {table} ORDER BY {keys}')  # noqa: S608

    def meta(self) -> dict[str, str]:
        """Return the map's own properties."""
        return dict(self.rows('SELECT key, value FROM meta'))

    def put_provenance(self, action: str, detail: dict[str, object]) -> None:
        """Note what was done to the map."""
        number = self.next_number('provenance')
        self.put('provenance', number, utc_now(), action, json.dumps(detail, sort_keys=True))

    # Sessions and cameras

    def sessions(self) -> dict[int, Session]:
        """Return all sessions by their number in this map."""
        sql = 'SELECT id, uuid, name, model_id, created FROM sessions ORDER BY id'
        return {row[0]: Session(*row[1:]) for row in self.rows(sql)}

    def put_session(self, number: int, session: Session) -> None:
        """Store a session."""
        self.put(
            'sessions', number, session.uuid, session.name, session.model_id, session.created
        )

    def put_camera(self, number: int, session_number: int, camera: Camera) -> None:
        """Store a camera of a session."""
        self.put(
            'cameras', number, session_number, camera.name, camera.frame_id, *camera.size_wh,
            _pack(camera.K), camera.distortion_model, _pack(camera.distortion),
            _pack(camera.T_base_camera),
        )

    def cameras(self) -> dict[int, tuple[int, Camera]]:
        """Return session number and camera by the camera's number in this map."""
        cameras = {}
        for row in self.rows(f'SELECT {", ".join(schema.columns("cameras"))} FROM cameras'):  # noqa: S608
            number, session, name, frame_id, width, height, K, model, distortion, T = row
            K_array, T_array = _unpack(K, (3, 3)), _unpack(T, (4, 4))
            coefficients = np.frombuffer(distortion or b'', np.float64).copy()
            cameras[number] = session, Camera(
                name, frame_id, (width, height), K_array, model, coefficients, T_array
            )
        return cameras

    # Keyframes

    def keyframe(self, keyframe_id: int) -> Optional[Keyframe]:
        """Return a keyframe, None if the map does not have it."""
        rows = self.rows(_KEYFRAME + 'WHERE k.id = ?', keyframe_id)
        return _keyframe(rows[0]) if rows else None

    def keyframes(self, session: Optional[str] = None) -> list[Keyframe]:
        """Return all keyframes, or those of a session (UUID), ordered by id."""
        if session is None:
            rows = self.rows(_KEYFRAME + 'ORDER BY k.id')
        else:
            rows = self.rows(_KEYFRAME + 'WHERE s.uuid = ? ORDER BY k.id', session)
        return [_keyframe(row) for row in rows]

    def core(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield id, stamp, session and camera number of all keyframes, as (n, 4) int64 chunks."""
        try:
            cursor = self.connection.execute(
                'SELECT id, stamp_ns, session_id, camera_id FROM keyframes '
                'INDEXED BY keyframes_core ORDER BY id'
            )
            while rows := cursor.fetchmany(_CHUNK):
                yield np.array(rows, np.int64)
        except sqlite3.Error as error:
            raise MapError(explain(error, self.name)) from error

    def checksums(self, first_id: int, last_id: int) -> list[int]:
        """Return the checksums of the descriptors of keyframes, both included, by rising id."""
        sql = 'SELECT descriptor_crc FROM keyframes WHERE id BETWEEN ? AND ? ORDER BY id'
        return [row[0] for row in self.rows(sql, first_id, last_id)]

    def entries(self, after_id: int) -> list[Entry]:
        """Return what an exclusion asks of the keyframes after an id."""
        rows = self.rows(
            'SELECT k.id, k.stamp_ns, s.uuid, c.name FROM keyframes k '
            'JOIN sessions s ON s.id = k.session_id JOIN cameras c ON c.id = k.camera_id '
            'WHERE k.id > ? ORDER BY k.id', after_id,
        )
        return [Entry(*row) for row in rows]

    def fold(self) -> None:
        """Move the log into the database file, on a connection of its own: no add waits for it."""
        if self.path is not None:
            connection = connect(self.path, 'rw')
            try:
                connection.execute('PRAGMA wal_checkpoint(PASSIVE)')
            finally:
                connection.close()

    def sync(self) -> None:
        """Wait until every committed row would survive a power cut.

        A row is in the log until it is in the synced database. A checkpoint would not do: it
        stops, without a sync, at the state that the oldest reader sees.

        :raises MapError: the disk does not take it.
        """
        if self.path is None:
            return
        try:
            fd = os.open(self.path.with_name(f'{self.path.name}-wal'), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return  # a file system without shared memory: SQLite keeps no log, commits are synced
        except OSError as error:
            raise MapError(explain_sync(error, self.path.parent)) from error

    def thumbnail(self, keyframe_id: int) -> Optional[bytes]:
        """Return the JPEG of a keyframe, None if it has none."""
        rows = self.rows('SELECT jpeg FROM thumbnails WHERE keyframe_id = ?', keyframe_id)
        return rows[0][0] if rows else None

    # Closures

    def put_closure(self, closure: LoopClosure) -> None:
        """Store a closure; one of the same query and match is replaced."""
        self.put(
            'closures', closure.query.id, closure.match.id, closure.query.stamp_ns,
            float(closure.similarity), closure.model_id, float(closure.margin),
            float(closure.normalised), float(closure.probability), int(closure.consistency),
            int(closure.rank), int(closure.status), int(closure.reject_reason),
            int(closure.transform_kind), _pack(closure.T_match_query), _pack(closure.covariance),
            int(closure.num_matches), int(closure.num_inliers), int(closure.latency_ns),
        )

    def closures(self, since_ns: int = 0) -> list[LoopClosure]:
        """Return the closures whose query is not older than a stamp, by query and rank."""
        names = ', '.join(schema.columns('closures'))
        sql = f'SELECT {names} FROM closures WHERE query_stamp_ns >= ? '  # noqa: S608
        rows = self.rows(sql + 'ORDER BY query_stamp_ns, query_id, rank, match_id', since_ns)
        known: dict[int, Keyframe] = {}
        for keyframe_id in {row[0] for row in rows} | {row[1] for row in rows}:
            keyframe = self.keyframe(keyframe_id)
            if keyframe is None:
                raise MapError(
                    f"{self.name}: a closure names keyframe {keyframe_id}, which the map does not "
                    f"have; see 'netvlad map verify'"
                )
            known[keyframe_id] = keyframe
        return [_closure(row, known) for row in rows]


def explain(error: sqlite3.Error, name: str) -> str:
    """Return what happened to the database, and what to do."""
    text = str(error)
    if 'full' in text:
        return f'disk is full, nothing more was stored in {name}; what is stored is intact'
    if 'readonly' in text or 'read-only' in text:
        return f'{name} cannot be written (read-only disk or folder): open it read-only'
    if 'malformed' in text or 'not a database' in text:
        return f"{name} is damaged ({text}); run 'netvlad map verify'"
    return f'{name}: {text}'


def _insert(table: str) -> str:
    names = schema.columns(table)
    marks = ', '.join(f'?{i + 1}' for i in range(len(names)))
    return (
        f'INSERT OR REPLACE INTO {table} ({", ".join(names)}, crc) '  # noqa: S608
        f'VALUES ({marks}, row_crc({marks}))'
    )


def _pack(array: Optional[FloatArray]) -> Optional[bytes]:
    return None if array is None else np.ascontiguousarray(array, '<f8').tobytes()


def _unpack(data: Optional[bytes], shape: tuple[int, ...]) -> Optional[FloatArray]:
    return None if data is None else np.frombuffer(data, '<f8').reshape(shape).copy()


def pack_pose(T: Optional[FloatArray]) -> Optional[bytes]:
    """Return the upper three rows of a pose as bytes; the last row is always 0 0 0 1."""
    return None if T is None else _pack(T[:3])


def _pose(data: Optional[bytes]) -> Optional[FloatArray]:
    if data is None:
        return None
    T = np.eye(4)
    T[:3] = np.frombuffer(data, '<f8').reshape(3, 4)
    return T


def _keyframe(row: tuple[Any, ...]) -> Keyframe:
    keyframe_id, stamp_ns, session, camera, place_id, pose = row
    return Keyframe(keyframe_id, stamp_ns, session, camera, place_id, _pose(pose))


def _closure(row: tuple[Any, ...], known: dict[int, Keyframe]) -> LoopClosure:
    values = dict(zip(schema.columns('closures'), row, strict=True))
    query, match = known[values.pop('query_id')], known[values.pop('match_id')]
    values.pop('query_stamp_ns')
    for name in ('similarity', 'margin', 'normalised', 'probability'):
        values[name] = math.nan if values[name] is None else values[name]  # SQLite has no NaN
    values['status'] = ClosureStatus(values['status'])
    values['reject_reason'] = RejectReason(values['reject_reason'])
    values['transform_kind'] = TransformKind(values['transform_kind'])
    values['T_match_query'] = _unpack(values['T_match_query'], (4, 4))
    values['covariance'] = _unpack(values['covariance'], (6, 6))
    return LoopClosure(query, match, **values)
