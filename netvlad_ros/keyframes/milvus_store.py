# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a map kept in a Milvus collection, with SQLite in memory as the working copy.

A transaction is written to Milvus before it is committed in memory. Each robot loads its own rows
when it opens the map; rows of other robots are fetched when a search names their keyframes, and
places when a keyframe is in them. A row belongs to the robot in whose numbers its id is, whoever
writes it; a closure belongs to the robot of its query.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
import json
from typing import Any, Optional
import uuid

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.store import Store, connect
from netvlad_ros.types import Keyframe

MAX_DATA_CHARS = 65_535  # of a Milvus VARCHAR
_LOAD_BATCH = 1000
_THUMBNAIL_BATCH = 100
NUMBERS_PER_ROBOT = 1 << 40
# Rows that a row needs: table -> column -> table that the column names a row of.
_LINKS = {
    'keyframes': {
        'session_id': 'sessions', 'camera_id': 'cameras', 'place_id': 'places',
        'origin_place_id': 'places',
    },
    'places': {'merged_into': 'places'},
}


class MilvusStore(Store):
    """Rows of one robot, and those of others that it asked for.

    :param client: a ``pymilvus.MilvusClient``.
    :param collection: of the records.
    :param first_number: where the ids of this robot begin.
    :param properties: of the map, for a robot that reads it and never wrote to it.
    """

    def __init__(
        self, client: Any, collection: str, robot: str, first_number: int, name: str,
        is_lite: bool, properties: dict[str, str],
    ) -> None:
        super().__init__(connect(None, 'rwc'), None)
        self.name, self.first_number = name, first_number
        self.is_in_memory = False
        # Milvus keeps every descriptor in float32.
        self._properties = {'dtype': 'float32', **properties}
        self._client, self._collection, self._robot = client, collection, robot
        self._is_lite = is_lite
        self._writer, self._writer_key = '', f'writer/{first_number}'
        self._robots = {first_number: robot}  # by the first number of each
        self._is_loading = False
        schema.create(self.connection)
        self._watch_changes()
        self._load(f'robot == {json.dumps(robot)} and table != "thumbnails"')

    def take_over(self) -> None:
        """Be the one program that writes as this robot; another one that still runs fails."""
        self._writer = str(uuid.uuid4())
        record = {
            'key': self._writer_key, 'robot': '', 'table': '', 'data': self._writer,
            'vector': [0.0, 0.0],
        }  # fmt: skip
        self.call('upsert', self._collection, [record])

    def check_writer(self) -> None:
        """Check that no other program took over, which gives the same ids.

        :raises MapError: one did.
        """
        condition = f'key == "{self._writer_key}"'
        found = self.call('query', self._collection, filter=condition, output_fields=['data'])
        if found and found[0]['data'] != self._writer:
            raise MapError(
                f'{self.name}: another program writes as robot {self._robot!r} since: set '
                'map.robot to a name of its own on each robot'
            )

    def _watch_changes(self) -> None:
        """Note what is written, except rows that come from Milvus: those are there already."""
        connection = self.connection
        connection.create_function('is_loading', 0, lambda: self._is_loading)
        connection.execute('CREATE TEMP TABLE changed (name, key, PRIMARY KEY (name, key))')
        for table, (keys, _) in schema.TABLES.items():
            key = " || '-' || ".join(f'NEW.{column}' for column in keys)
            for event in ('INSERT', 'UPDATE'):
                change = f"INSERT OR IGNORE INTO changed VALUES ('{table}', {key})"  # noqa: S608
                connection.execute(
                    f'CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} '
                    f'WHEN NOT is_loading() BEGIN {change}; END'
                )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes in Milvus, then here; or nothing of it.

        :raises MapError: Milvus did not take it.
        """
        with super().transaction():
            yield
            changed = self.rows('SELECT name, key FROM changed ORDER BY name, key')
            if changed:
                self.check_writer()
                records = [self._record(table, str(key)) for table, key in changed]
                self.call('upsert', self._collection, records)
                self.connection.execute('DELETE FROM changed')

    def _record(self, table: str, key: str) -> dict[str, object]:
        keys, _ = schema.TABLES[table]
        names = ', '.join(schema.columns(table))
        where = ' AND '.join(f'{column} = ?' for column in keys)
        parts = [key] if table == 'meta' else [int(part) for part in key.split('-')]
        sql = f'SELECT {names} FROM {table} WHERE {where}'  # noqa: S608
        data = json.dumps([_to_json(value) for value in self.rows(sql, *parts)[0]])
        if len(data) > MAX_DATA_CHARS:
            raise MapError(
                f'{table} {key} takes {len(data)} characters, Milvus keeps {MAX_DATA_CHARS}: '
                f'make map.thumbnail_px smaller'
            )
        # Properties are each robot's own; all other keys are unique by the robot's numbers.
        scope = f'@{self._robot}' if table == 'meta' else ''
        robot = self._robot if table == 'meta' else self._robot_of(int(parts[0]))
        return {
            'key': f'{table}/{key}{scope}', 'robot': robot, 'table': table, 'data': data,
            'vector': [0.0, 0.0],  # Milvus wants a vector in every collection
        }

    def _robot_of(self, number: int) -> str:
        """Return the robot in whose numbers an id is."""
        first = number - number % NUMBERS_PER_ROBOT
        if first not in self._robots:
            claims = self.call(
                'query', self._collection, filter=f'key == "robot/{first}"', output_fields=['data']
            )
            if not claims:
                raise MapError(
                    f'{self.name}: no robot has the numbers from {first}, id {number} cannot be '
                    f'stored: the record robot/{first} was deleted'
                )
            self._robots[first] = str(claims[0]['data'])
        return self._robots[first]

    def _load(self, condition: str) -> None:
        """Fetch the records that meet a condition, and the rows that those need."""
        linked: set[tuple[str, int]] = set()
        # Also called while a transaction is open: a closure may name what is not here yet.
        is_inside = self.connection.in_transaction
        with nullcontext() if is_inside else super().transaction():
            self._is_loading = True
            try:
                for record in self.select(self._collection, condition, ['table', 'data']):
                    table = record['table']
                    values = [_from_json(value) for value in json.loads(record['data'])]
                    self.put(table, *values)
                    row = dict(zip(schema.columns(table), values, strict=True))
                    linked |= {
                        (other, row[column]) for column, other in _LINKS.get(table, {}).items()
                        if row[column] is not None
                    }
            finally:
                self._is_loading = False
        missing = [f'{table}/{key}' for table, key in sorted(linked) if not self._has(table, key)]
        for start in range(0, len(missing), _LOAD_BATCH):
            self._load(f'key in {json.dumps(missing[start : start + _LOAD_BATCH])}')

    def _has(self, table: str, key: int) -> bool:
        return bool(self.rows(f'SELECT 1 FROM {table} WHERE id = ?', key))  # noqa: S608

    def select(
        self, collection: str, condition: str, fields: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield some fields of all entities that meet a condition."""
        if self._is_lite:  # it has no window of results, and no timestamps for an iterator
            yield from self.call('query', collection, filter=condition, output_fields=fields)
            return
        records = self.call(
            'query_iterator', collection, batch_size=_LOAD_BATCH, filter=condition,
            output_fields=fields,
        )
        while batch := records.next():
            yield from batch

    def meta(self) -> dict[str, str]:
        """Return the map's own properties."""
        return {**self._properties, **super().meta()}

    def next_number(self, table: str) -> int:
        """Return the next id that this robot gives in a table."""
        first = self.first_number
        sql = f'SELECT MAX(id) FROM {table} WHERE id BETWEEN ? AND ?'  # noqa: S608
        last = self.rows(sql, first, first + NUMBERS_PER_ROBOT - 1)[0][0]
        return first if last is None else int(last) + 1

    def scan(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a table that are here; of thumbnails, those of the keyframes here."""
        if table != 'thumbnails':
            yield from super().scan(table)
            return
        ids = self.rows('SELECT id FROM keyframes ORDER BY id')
        keys = [f'thumbnails/{row[0]}' for row in ids]
        for start in range(0, len(keys), _THUMBNAIL_BATCH):
            condition = f'key in {json.dumps(keys[start : start + _THUMBNAIL_BATCH])}'
            for record in self.select(self._collection, condition, ['data']):
                keyframe_id, jpeg = json.loads(record['data'])
                yield keyframe_id, _from_json(jpeg)

    def keyframe(self, keyframe_id: int) -> Optional[Keyframe]:
        """Return a keyframe of any robot, None if there is none of this id."""
        if (found := super().keyframe(keyframe_id)) is not None:
            return found
        self._load(f'key == "keyframes/{keyframe_id}"')
        return super().keyframe(keyframe_id)

    def thumbnail(self, keyframe_id: int) -> Optional[bytes]:
        """Return the JPEG of a keyframe, None if it has none."""
        found = self._client.query(
            self._collection, filter=f'key == "thumbnails/{keyframe_id}"', output_fields=['data']
        )
        return _from_json(json.loads(found[0]['data'])[1]) if found else None

    def call(self, method: str, *arguments: object, **options: object) -> Any:
        """Call a method of the client.

        :raises MapError: the database does not answer, or refuses.
        """
        from pymilvus import MilvusException

        try:
            return getattr(self._client, method)(*arguments, **options)
        except MilvusException as error:
            raise MapError(f'{self.name}: {error.message}') from error


def _to_json(value: Any) -> Any:
    return {'b64': base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    return base64.b64decode(value['b64']) if isinstance(value, dict) else value
