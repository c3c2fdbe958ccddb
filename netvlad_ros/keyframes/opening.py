# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Makes, opens and migrates the database of a map; one writer at a time."""

from __future__ import annotations

from pathlib import Path
import sqlite3
from typing import Optional

from netvlad_ros import __version__
from netvlad_ros.config import MapConfig
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.blocks import rows_per_block, sync_folder
from netvlad_ros.keyframes.store import Store, connect, explain

DATABASE = 'map.sqlite'
# NORMAL leaves the log to the operating system, which outlives the process; FULL waits for the disk.
_SYNCHRONOUS = {'normal': 'NORMAL', 'full': 'FULL'}


def open_store(
    folder: Optional[Path], model_id: str, dim: int, config: MapConfig, read_only: bool
) -> Store:
    """Open the database in a folder (None in memory); the writer makes it if it is absent.

    :raises MapError: it cannot be opened; the message says why and what to do.
    """
    name = 'map in memory' if folder is None else str(folder)
    path = None if folder is None else folder / DATABASE
    if path is not None and not path.is_file():
        if read_only:
            raise MapError(f'there is no map in {name}')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MapError(f'cannot make {name}: {error.strerror}') from error
    try:
        connection = connect(path, 'ro' if read_only else 'rwc')
        store = Store(connection, name)
        if not read_only:
            _set_up(connection, store, model_id, dim, config)
    except sqlite3.Error as error:
        raise MapError(explain(error, name)) from error
    if path is not None and not read_only:
        sync_folder(path.parent)
    return store


def _set_up(
    connection: sqlite3.Connection, store: Store, model_id: str, dim: int, config: MapConfig
) -> None:
    connection.execute(f'PRAGMA page_size = {schema.PAGE_SIZE}')
    connection.execute('PRAGMA journal_mode = WAL')
    connection.execute(f'PRAGMA synchronous = {_SYNCHRONOUS[config.durability]}')
    if connection.execute('SELECT COUNT(*) FROM sqlite_master').fetchone()[0]:
        with store.transaction():
            schema.migrate(connection, store.name)
        return
    with store.transaction():
        schema.create(connection)
        properties = {
            'model_id': model_id, 'dim': str(dim), 'dtype': config.dtype,
            'rows_per_block': str(rows_per_block(dim, config.dtype)),
        }
        for key, value in properties.items():
            store.put('meta', key, value)
        store.put_provenance('create', {'netvlad_ros': __version__})
