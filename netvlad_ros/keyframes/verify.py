# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checks every record of a stored map against its checksum and its references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
import sqlite3

from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.blocks import block_file
from netvlad_ros.keyframes.damaged import DamagedReader, Key
from netvlad_ros.keyframes.reader import MapReader

# Table -> column -> table that the column names a row of.
_REFERENCES = {
    'cameras': {'session_id': 'sessions'},
    'keyframes': {'session_id': 'sessions', 'camera_id': 'cameras', 'place_id': 'places'},
    'thumbnails': {'keyframe_id': 'keyframes'},
    'closures': {'query_id': 'keyframes', 'match_id': 'keyframes'},
}


@dataclass(frozen=True)
class Fault:
    """One damaged or missing record.

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
    with DamagedReader(folder) as reader:
        faults = list(_database_faults(reader))
        known: dict[str, set[Key]] = {}  # keys by table, also of damaged rows
        missing: dict[tuple[str, Key], Fault] = {}
        checksums: dict[int, int] = {}  # of the descriptors, by keyframe id
        for table in schema.TABLES:
            known[table] = set()
            for key, found in reader.records(table):
                known[table].add(key)
                if isinstance(found, str):
                    faults.append(Fault(table, _name(key), found))
                    continue
                # Tables come after those that they name.
                for column, other in _REFERENCES.get(table, {}).items():
                    if (named := (found[column],)) not in known[other]:
                        problem = f'missing, {table} {_name(key)} names it'
                        missing.setdefault((other, named), Fault(other, _name(named), problem))
                if table == 'keyframes':
                    checksums[found['id']] = found['descriptor_crc']
        faults += _descriptor_faults(reader, checksums)
        records = {table: len(keys) for table, keys in known.items()}
    return VerifyReport(records, (*faults, *missing.values()))


def _name(key: Key) -> str:
    return '-'.join(map(str, key))


def _database_faults(reader: MapReader) -> Iterator[Fault]:
    try:
        for (line,) in reader.store.connection.execute('PRAGMA integrity_check'):
            if line != 'ok':
                yield Fault('file', 'map.sqlite', line)
    except sqlite3.Error as error:
        yield Fault('file', 'map.sqlite', str(error))


def _descriptor_faults(reader: DamagedReader, checksums: dict[int, int]) -> Iterator[Fault]:
    rows, size = reader.descriptor_rows, reader.rows_per_block
    ids_of_blocks: dict[int, dict[int, int]] = {}  # block -> row in it -> keyframe id
    for keyframe_id in checksums:
        if keyframe_id in rows:
            number, row = divmod(rows[keyframe_id], size)
            ids_of_blocks.setdefault(number, {})[row] = keyframe_id
        else:
            yield Fault('descriptors', str(keyframe_id), 'in no block file')
    # Of a lost file nothing says what it had, but the keyframes fill the files without a gap.
    least = -(-len(checksums) // size)
    for number in range(max(least, *(block + 1 for block in ids_of_blocks), 0)):
        file = block_file(reader.folder, number, reader.dim, reader.dtype, size)
        name = file.path.name
        if header := file.check_header():
            yield Fault('file', name, header)
        ids = ids_of_blocks.get(number, {})
        # Rows without a gap are read in one go; there is one where a keyframe is lost.
        for _, run in groupby(enumerate(sorted(ids)), lambda item: item[1] - item[0]):
            rows_of_run = [row for _, row in run]
            ids_of_run = [ids[row] for row in rows_of_run]
            expected_crcs = [checksums[keyframe_id] for keyframe_id in ids_of_run]
            for row in file.damaged_rows(rows_of_run[0], ids_of_run, expected_crcs):
                yield Fault('descriptors', str(ids[row]), f'checksum differs in {name}, row {row}')
