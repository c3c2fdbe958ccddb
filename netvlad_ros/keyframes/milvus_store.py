# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of a map kept in a Milvus collection, with SQLite in memory as the working copy.

A transaction is written to Milvus before it is committed in memory. Each robot loads its own rows
when it opens the map; rows of other robots are fetched when a search names their keyframes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
import json
from typing import Any, Optional

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.store import Store, connect
from netvlad_ros.types import Keyframe

MAX_DATA_CHARS = 65_535  # of a Milvus VARCHAR
_LOAD_BATCH = 1000
_LINKED = (('sessions', 'session_id'), ('cameras', 'camera_id'), ('places', 'place_id'))


class MilvusStore(Store):
    """Rows of one robot, and those of others that it asked for.

    :param client: a ``pymilvus.MilvusClient``.
    :param collection: of the records.
    :param first_number: where the ids of this robot begin.
    """

    def __init__(
        self, client: Any, collection: str, robot: str, first_number: int, name: str,
        is_lite: bool,
    ) -> None:
        super().__init__(connect(None, 'rwc'), None)
        self.name, self.first_number = name, first_number
        self._client, self._collection, self._robot = client, collection, robot
        self._is_lite = is_lite
        schema.create(self.connection)
        self._load(f'robot == {json.dumps(robot)} and table != "thumbnails"')
        self._watch_changes()

    def _watch_changes(self) -> None:
        connection = self.connection
        connection.execute('CREATE TEMP TABLE changed (name, key, PRIMARY KEY (name, key))')
        for table, (keys, _) in schema.TABLES.items():
            key = " || '-' || ".join(f'NEW.{column}' for column in keys)
            for event in ('INSERT', 'UPDATE'):
                change = f"INSERT OR IGNORE INTO changed VALUES ('{table}', {key})"  # noqa: S608
                connection.execute(
                    f'CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} '
                    f'BEGIN {change}; END'
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
        return {
            'key': f'{table}/{key}{scope}', 'robot': self._robot, 'table': table, 'data': data,
            'vector': [0.0, 0.0],  # Milvus wants a vector in every collection
        }

    def _load(self, condition: str) -> int:
        count = 0
        self.connection.execute('BEGIN')
        for record in self._select(condition):
            values = [_from_json(value) for value in json.loads(record['data'])]
            self.put(record['table'], *values)
            count += 1
        self.connection.execute('COMMIT')
        return count

    def _select(self, condition: str) -> Iterator[dict[str, Any]]:
        fields = ['table', 'data']
        if self._is_lite:  # it has no window of results, and no timestamps for an iterator
            yield from self.call(
                'query', self._collection, filter=condition, output_fields=fields
            )
            return
        records = self.call(
            'query_iterator', self._collection, batch_size=_LOAD_BATCH, filter=condition,
            output_fields=fields,
        )
        while batch := records.next():
            yield from batch

    def ensure(self, keyframe_id: int) -> None:
        """Fetch a keyframe of another robot with its session, camera and place."""
        if super().keyframe(keyframe_id) is not None:
            return
        if not self._fetch('keyframes', keyframe_id):
            return
        for table, column in _LINKED:
            sql = f'SELECT {column} FROM keyframes WHERE id = ?'  # noqa: S608
            self._fetch(table, self.rows(sql, keyframe_id)[0][0])
        # What was fetched is not ours to write back.
        self.connection.execute('DELETE FROM changed')

    def _fetch(self, table: str, key: int) -> bool:
        return self._load(f'key == "{table}/{key}"') > 0

    def keyframe(self, keyframe_id: int) -> Optional[Keyframe]:
        """Return a keyframe of any robot, None if there is none of this id."""
        self.ensure(keyframe_id)
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
