# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checks every record of a stored map against its checksum and its references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import sqlite3

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.blocks import block_file
from netvlad_ros.keyframes.reader import MapReader

# Column that names a row of another table: (table, column, other table).
_REFERENCES = (
    ('cameras', 'session_id', 'sessions'),
    ('keyframes', 'session_id', 'sessions'),
    ('keyframes', 'camera_id', 'cameras'),
    ('keyframes', 'place_id', 'places'),
    ('thumbnails', 'keyframe_id', 'keyframes'),
    ('closures', 'query_id', 'keyframes'),
    ('closures', 'match_id', 'keyframes'),
)


@dataclass(frozen=True)
class Fault:
    """One damaged record.

    :param table: 'keyframes', 'thumbnails', 'descriptors' and so on, or 'file'.
    :param key: of the record in its table; the file's name for 'file'.
    """

    table: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f'{self.table} {self.key}: {self.problem}'


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what is damaged."""

    records: dict[str, int]
    faults: tuple[Fault, ...]

    @property
    def lost_keyframes(self) -> set[int]:
        """Ids of the keyframes whose own row or descriptor is damaged."""
        tables = ('keyframes', 'descriptors')
        return {int(fault.key) for fault in self.faults if fault.table in tables}


def verify(folder: Path) -> VerifyReport:
    """Check a map; it is only read.

    :raises MapError: there is no map, or its database cannot be opened at all.
    """
    with MapReader(folder) as reader:
        faults = list(_database_faults(reader))
        records = {}
        for table in schema.TABLES:
            try:
                records[table] = reader.count(table)
            except MapError:
                records[table] = 0
            faults += _row_faults(reader, table)
        try:
            faults += _reference_faults(reader)
            faults += _descriptor_faults(reader)
        except (MapError, sqlite3.Error) as error:
            faults.append(Fault('file', 'map.sqlite', str(error)))
    return VerifyReport(records, tuple(dict.fromkeys(faults)))


def _database_faults(reader: MapReader) -> Iterator[Fault]:
    try:
        for (line,) in reader.store.connection.execute('PRAGMA integrity_check'):
            if line != 'ok':
                yield Fault('file', 'map.sqlite', line)
    except sqlite3.Error as error:
        yield Fault('file', 'map.sqlite', str(error))


def _row_faults(reader: MapReader, table: str) -> list[Fault]:
    keys, _ = schema.TABLES[table]
    columns = ', '.join(schema.columns(table))
    sql = (
        f'SELECT {", ".join(keys)} FROM {table} '  # noqa: S608
        f'WHERE crc IS NOT row_crc({columns})'
    )
    try:
        found = reader.store.connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        return [Fault('file', f'table {table}', str(error)), *_unreadable_rows(reader, table)]
    return [Fault(table, '-'.join(map(str, row)), 'checksum differs') for row in found]


def _unreadable_rows(reader: MapReader, table: str) -> list[Fault]:
    """Read a damaged table row by row, so that each lost row is named."""
    keys, _ = schema.TABLES[table]
    if keys not in {('id',), ('keyframe_id',)}:
        return []
    connection, columns = reader.store.connection, ', '.join(schema.columns(table))
    try:
        last = connection.execute(f'SELECT MAX({keys[0]}) FROM {table}').fetchone()[0]  # noqa: S608
    except sqlite3.Error:
        return []
    faults = []
    for key in range((last or 0) + 1):
        sql = f'SELECT crc IS row_crc({columns}) FROM {table} WHERE {keys[0]} = ?'  # noqa: S608
        try:
            row = connection.execute(sql, (key,)).fetchone()
            if row is not None and not row[0]:
                faults.append(Fault(table, str(key), 'checksum differs'))
        except sqlite3.Error as error:
            faults.append(Fault(table, str(key), f'cannot be read ({error})'))
    return faults


def _reference_faults(reader: MapReader) -> Iterator[Fault]:
    for table, column, other in _REFERENCES:
        key = schema.TABLES[table][0][0]
        other_key = schema.TABLES[other][0][0]
        sql = (
            f'SELECT {key}, {column} FROM {table} '  # noqa: S608
            f'WHERE {column} NOT IN (SELECT {other_key} FROM {other})'
        )
        for row in reader.store.rows(sql):
            yield Fault(table, str(row[0]), f'{column} {row[1]} is not in {other}')


def _descriptor_faults(reader: MapReader) -> Iterator[Fault]:
    rows = reader.store.rows('SELECT id, descriptor_crc FROM keyframes ORDER BY id')
    size = reader.rows_per_block
    for number in range(-(-len(rows) // size)):
        part = rows[number * size : (number + 1) * size]
        file = block_file(reader.folder, number, reader.dim, reader.dtype, size)
        name = file.path.name
        if header := file.check_header():
            yield Fault('file', name, header)
        if not file.path.is_file():
            for keyframe_id, _ in part:
                yield Fault('descriptors', str(keyframe_id), f'{name} is missing')
            continue
        ids, checksums = [row[0] for row in part], [row[1] for row in part]
        for row in file.damaged_rows(0, ids, checksums):
            yield Fault('descriptors', str(ids[row]), f'checksum differs in {name}, row {row}')
