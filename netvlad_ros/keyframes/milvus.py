# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A map in Milvus: in process from a file, or in a cluster that many robots share.

- ``milvus+file:NAME.db`` runs Milvus Lite in this process.
- ``milvus+http://host:port`` and ``milvus+https://host:port`` talk to a server. The token comes
  from the environment variable NETVLAD_MILVUS_TOKEN and is never logged or stored.

Two collections: ``netvlad_keyframes`` has the descriptors with what an exclusion asks for, in one
partition per robot; ``netvlad_records`` has all other rows as JSON. A robot's keyframe, session,
camera and place ids begin at 2^40 times a number made of its name, so that ids of robots never
meet. A search finds the keyframes of all robots. A place that several robots change at once keeps
the last change. Of two programs that write as one robot the one that opened the map last goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import json
import os
import re
import socket
from typing import Any, Optional
import zlib

import numpy as np

from netvlad_ros import __version__
from netvlad_ros.config import MapConfig
from netvlad_ros.errors import ConfigError, MapError
from netvlad_ros.keyframes.block_file import row_checksum
from netvlad_ros.keyframes.milvus_store import MAX_DATA_CHARS, NUMBERS_PER_ROBOT, MilvusStore
from netvlad_ros.keyframes.records import Entry, Exclusion, Neighbour
from netvlad_ros.keyframes.store import expanded
from netvlad_ros.types import Float32Array

KEYFRAMES, RECORDS = 'netvlad_keyframes', 'netvlad_records'
TOKEN_VARIABLE = 'NETVLAD_MILVUS_TOKEN'  # noqa: S105
_ROBOT_NUMBERS = 1 << 20
_MAX_NAME = 256
_READ_BATCH = 1000


def open_milvus(
    path: str, model_id: str, dim: int, config: MapConfig, read_only: bool
) -> tuple[MilvusStore, MilvusVectors]:
    """Connect to a database and make the collections if they are absent.

    :raises ConfigError: the path is not of a known form.
    :raises MapError: the database cannot be reached, or holds a map of another model.
    """
    # gRPC's threads would write to stderr; what goes wrong is raised to the caller anyway.
    os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
    from pymilvus import MilvusClient, MilvusException

    uri = _uri(path)
    robot = config.robot or socket.gethostname()
    first = (zlib.crc32(robot.encode()) % _ROBOT_NUMBERS) * NUMBERS_PER_ROBOT
    try:
        client = MilvusClient(uri, token=os.environ.get(TOKEN_VARIABLE, ''))
        if not client.has_collection(KEYFRAMES):
            if read_only:
                raise MapError(f'there is no map in {path}')
            _make_collections(client, dim, config.index == 'exact' or uri.endswith('.db'))
        for collection in (KEYFRAMES, RECORDS):
            client.load_collection(collection)
        model = _claim(client, 'map/model', f'{model_id} ({dim}-D)', read_only)
        if model != f'{model_id} ({dim}-D)':
            raise MapError(
                f'{path} was made with {model}, not with {model_id} ({dim}-D): use another '
                f'database, or the model that the other robots use'
            )
        owner = _claim(client, f'robot/{first}', robot, read_only)
        if owner not in (robot, None):
            raise MapError(
                f'{path}: the names of robots {robot!r} and {owner!r} give the same numbers: '
                f'set map.robot to another name'
            )
        properties = {'model_id': model_id, 'dim': str(dim)}
        store = MilvusStore(client, RECORDS, robot, first, path, uri.endswith('.db'), properties)
        if not read_only:
            store.take_over()
        if not read_only and not store.rows('SELECT 1 FROM meta'):
            with store.transaction():
                for key, value in properties.items():
                    store.put('meta', key, value)
                store.put_provenance('create', {'netvlad_ros': __version__, 'robot': robot})
        return store, MilvusVectors(client, store, model_id, dim, robot, read_only)
    except MilvusException as error:
        raise MapError(f'{path}: {error.message}') from error


def _uri(path: str) -> str:
    if match := re.fullmatch(r'milvus\+file:(.+\.db)', path):
        return str(expanded(match.group(1)))
    if match := re.fullmatch(r'milvus\+(https?)://([^/@]+)/?', path):
        return '://'.join(match.groups())
    raise ConfigError(
        f'map path {path.split("@")[-1]!r} is not milvus+file:NAME.db or '
        f'milvus+http(s)://host:port (a token goes into the environment variable {TOKEN_VARIABLE})'
    )


def _make_collections(client: Any, dim: int, is_exact: bool) -> None:
    from pymilvus import DataType

    index_type = 'FLAT' if is_exact else 'AUTOINDEX'
    fields = {
        KEYFRAMES: ('id', dim, ('session', 'camera', 'robot'), index_type),
        RECORDS: ('key', 2, ('robot', 'table', 'data'), 'FLAT'),
    }
    for name, (key, vector_dim, texts, index_type) in fields.items():
        columns = client.create_schema(auto_id=False)
        if key == 'id':
            columns.add_field('id', DataType.INT64, is_primary=True)
            columns.add_field('stamp_ns', DataType.INT64)
        else:
            columns.add_field('key', DataType.VARCHAR, is_primary=True, max_length=_MAX_NAME)
        for text in texts:
            length = MAX_DATA_CHARS if text == 'data' else _MAX_NAME
            columns.add_field(text, DataType.VARCHAR, max_length=length)
        columns.add_field('vector', DataType.FLOAT_VECTOR, dim=vector_dim)
        index = client.prepare_index_params()
        index.add_index('vector', index_type=index_type, metric_type='IP')
        client.create_collection(
            name, schema=columns, index_params=index, consistency_level='Session'
        )


def _claim(client: Any, key: str, value: str, read_only: bool) -> Optional[str]:
    """Return the value that a key has; if it has none, give it one unless read-only."""
    found = client.query(RECORDS, filter=f'key == {json.dumps(key)}', output_fields=['data'])
    if found:
        return str(found[0]['data'])
    if not read_only:
        record = {'key': key, 'robot': '', 'table': '', 'data': value, 'vector': [0.0, 0.0]}
        client.insert(RECORDS, [record])
    return None if read_only else value


class MilvusVectors:
    """Descriptors in a collection; every robot writes to its own partition and searches all."""

    def __init__(
        self, client: Any, store: MilvusStore, model_id: str, dim: int, robot: str,
        read_only: bool,
    ) -> None:
        self.damaged: list[int] = []
        self.model_id, self.dim = model_id, dim
        self._client, self._store, self._robot = client, store, robot
        # Partition names are letters, digits and underscores.
        self._partition = f'robot_{store.first_number // NUMBERS_PER_ROBOT}'
        self._end = store.first_number + NUMBERS_PER_ROBOT
        if not read_only and not client.has_partition(KEYFRAMES, self._partition):
            client.create_partition(KEYFRAMES, self._partition)
        orphans = self._orphans()
        if orphans and not read_only:
            client.delete(KEYFRAMES, ids=orphans)
        self.next_id = store.next_number('keyframes')

    def _orphans(self) -> list[int]:
        """Return own descriptors of no keyframe: a run ended between one and the other.

        A descriptor whose keyframe is stored, but as another robot's, as older programs did when
        places were merged, makes the store fetch that keyframe.
        """
        own = f'id >= {self._store.first_number} and id < {self._end}'
        ids = {int(row['id']) for row in self._store.select(KEYFRAMES, own, ['id'])}
        ids -= {row[0] for row in self._store.rows('SELECT id FROM keyframes')}
        return [number for number in sorted(ids) if self._store.keyframe(number) is None]

    def __len__(self) -> int:
        return self.next_id - self._store.first_number

    def __contains__(self, keyframe_id: object) -> bool:
        return isinstance(keyframe_id, int) and self._store.keyframe(keyframe_id) is not None

    def write(self, entry: Entry, vector: Float32Array) -> int:
        """Store a descriptor that no search sees yet; returns its checksum."""
        row = {
            'id': entry.keyframe_id, 'stamp_ns': entry.stamp_ns, 'session': entry.session,
            'camera': entry.camera, 'robot': self._robot, 'vector': vector,
        }
        self._store.check_writer()
        self._store.call('upsert', KEYFRAMES, [row], partition_name=self._partition)
        return row_checksum(entry.keyframe_id, vector.tobytes())

    def publish(self, entry: Entry) -> None:
        """Let searches see the descriptor written last; its keyframe is committed."""
        self.next_id = entry.keyframe_id + 1

    def search(
        self, vector: Float32Array, k: int, exclude: Optional[Exclusion]
    ) -> list[Neighbour]:
        """Return up to k keyframes of all robots by falling similarity, ties by id."""
        conditions = [f'(id < {self.next_id} or id >= {self._end})', *_conditions(exclude)]
        hits = self._store.call(
            'search', KEYFRAMES, [vector], limit=k, filter=' and '.join(conditions),
            search_params={'metric_type': 'IP'},
        )[0]
        found = [Neighbour(int(hit['id']), float(hit['distance'])) for hit in hits]
        return sorted(found, key=lambda hit: (-hit.similarity, hit.keyframe_id))

    def read(self, ids: Iterable[int]) -> Float32Array:
        """Return descriptors as (N, dim) float32.

        :raises MapError: the database does not have one of them.
        """
        wanted = list(ids)
        vectors: dict[int, Any] = {}
        for start in range(0, len(wanted), _READ_BATCH):
            condition = f'id in {wanted[start : start + _READ_BATCH]}'
            rows = self._store.call(
                'query', KEYFRAMES, filter=condition, output_fields=['id', 'vector']
            )
            vectors |= {int(row['id']): row['vector'] for row in rows}
        missing = [i for i in wanted if i not in vectors]
        if missing:
            raise MapError(f'{self._store.name} has no descriptor of keyframe {missing[0]!r}')
        rows = [np.asarray(vectors[i], np.float32) for i in wanted]
        return np.array(rows, np.float32).reshape(-1, self.dim)

    def follow(self, entries: Sequence[Entry]) -> None:
        """Do nothing: a search sees what others wrote."""

    def sync(self) -> None:
        """Do nothing: Milvus answers when its log has the row."""

    def maintain(self) -> None:
        """Do nothing: Milvus does."""

    def improve(self) -> None:
        """Do nothing: Milvus indexes by itself."""

    def stop_improving(self) -> None:
        """Do nothing."""

    def stats(self) -> dict[str, object]:
        """Return what diagnostics show."""
        rows = self._client.get_collection_stats(KEYFRAMES)['row_count']
        return {
            'index': 'milvus', 'index_reason': 'asked for by the path of the map',
            'damaged': 0, 'keyframes_of_all_robots': rows, 'robot': self._robot,
        }

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def _conditions(exclude: Optional[Exclusion]) -> list[str]:
    """Return an exclusion as Milvus filter expressions, all of which must hold."""
    if exclude is None:
        return []
    found = []
    if exclude.session is not None and exclude.newer_than_ns is not None:
        session = json.dumps(exclude.session)
        found.append(f'(session != {session} or stamp_ns <= {exclude.newer_than_ns})')
    if exclude.whole_session is not None:
        found.append(f'session != {json.dumps(exclude.whole_session)}')
    if exclude.camera is not None:
        found.append(f'camera != {json.dumps(exclude.camera)}')
    if exclude.ids:
        found.append(f'id not in {sorted(exclude.ids)}')
    return found
