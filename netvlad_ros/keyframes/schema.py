# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of ``map.sqlite``, their version, and the steps from each version to the next.

Every row has a ``crc`` over its other columns, made by the SQL function ``row_crc`` that
``store.connect`` registers: SQLite itself notices a broken page but not a flipped bit in a value.
"""

from __future__ import annotations

from collections.abc import Callable
import sqlite3
import zlib

from netvlad_ros.errors import MapError

APPLICATION_ID = 0x4E564D50  # 'NVMP'
SCHEMA_VERSION = 1
# Small pages: a thumbnail ends somewhere in a page, and the rest of that page is lost.
PAGE_SIZE = 1024

# Table -> (key columns, value columns). The order is that of ``row_crc``.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'meta': (('key',), ('value',)),
    'sessions': (('id',), ('uuid', 'name', 'model_id', 'created')),
    'cameras': (
        ('id',),
        (
            'session_id', 'name', 'frame_id', 'width', 'height', 'K', 'distortion_model',
            'distortion', 'T_base_camera',
        ),
    ),
    'places': (('id',), ('founder_id', 'representative_id', 'visits', 'merged_into')),
    'keyframes': (
        ('id',),
        (
            'stamp_ns', 'session_id', 'camera_id', 'place_id', 'origin_place_id', 'T_odom_base',
            'descriptor_crc',
        ),
    ),
    'thumbnails': (('keyframe_id',), ('jpeg',)),
    'closures': (
        ('query_id', 'match_id'),
        (
            'query_stamp_ns', 'similarity', 'model_id', 'margin', 'normalised', 'probability',
            'consistency', 'rank', 'status', 'reject_reason', 'transform_kind', 'T_match_query',
            'covariance', 'num_matches', 'num_inliers', 'latency_ns',
        ),
    ),
    'provenance': (('id',), ('at', 'action', 'detail')),
}
_INDEXES = (
    # All that opening a map reads of each keyframe, a sixth of the table.
    'CREATE INDEX keyframes_core ON keyframes(id, stamp_ns, session_id, camera_id)',
    'CREATE INDEX keyframes_by_place ON keyframes(place_id)',
    'CREATE INDEX closures_by_stamp ON closures(query_stamp_ns)',
    'CREATE INDEX closures_by_match ON closures(match_id)',
)


def row_crc(*values: object) -> int:
    """Return the CRC-32 of the values of a row (None, int, float, str, bytes)."""
    crc = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        crc = zlib.crc32(data, zlib.crc32(b'\x1f', crc))
    return crc


def columns(table: str) -> tuple[str, ...]:
    """Return the names of a table's columns without ``crc``, keys first."""
    keys, values = TABLES[table]
    return keys + values


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of the current version in an empty database."""
    for table, (keys, values) in TABLES.items():
        if keys in {('id',), ('keyframe_id',)}:
            head = f'{keys[0]} INTEGER PRIMARY KEY'
            tail = ''
        else:
            head = ', '.join(keys)
            tail = f', PRIMARY KEY ({head})) WITHOUT ROWID'
        body = ', '.join((head, *values, 'crc'))
        connection.execute(f'CREATE TABLE {table} ({body}{tail or ")"}')
    for statement in _INDEXES:
        connection.execute(statement)
    connection.execute(f'PRAGMA application_id = {APPLICATION_ID}')
    connection.execute(f'PRAGMA user_version = {SCHEMA_VERSION}')


# Step from version n to n + 1, inside one transaction with those after it.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {}


def check(connection: sqlite3.Connection, source: str, may_be_older: bool = False) -> int:
    """Return the schema version of a database.

    :raises MapError: the file is not a map, or not of a version that can be used.
    """
    version = int(connection.execute('PRAGMA user_version').fetchone()[0])
    application = int(connection.execute('PRAGMA application_id').fetchone()[0])
    if application != APPLICATION_ID:
        raise MapError(f'{source} is not a keyframe map (application id {application:#x})')
    if version > SCHEMA_VERSION:
        raise MapError(
            f'{source} has schema version {version}, this program knows up to {SCHEMA_VERSION}: '
            f'update netvlad_ros'
        )
    if version < SCHEMA_VERSION and not may_be_older:
        raise MapError(
            f'{source} has schema version {version}: open it once for writing, which brings it to '
            f'{SCHEMA_VERSION}'
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables from an older version to the current one; call it in a transaction."""
    for step in range(version, SCHEMA_VERSION):
        MIGRATIONS[step](connection)
    connection.execute(f'PRAGMA user_version = {SCHEMA_VERSION}')
