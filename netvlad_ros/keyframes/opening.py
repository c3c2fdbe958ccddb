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
from netvlad_ros.keyframes.block_file import sync_folder
from netvlad_ros.keyframes.blocks import rows_per_block
from netvlad_ros.keyframes.locking import WriterLock
from netvlad_ros.keyframes.store import Store, connect, expanded, explain

DATABASE = 'map.sqlite'
# The path of a map that is a database.
MILVUS = 'milvus+'
# NORMAL leaves the log to the operating system, which outlives the process.
_SYNCHRONOUS = {'normal': 'NORMAL', 'full': 'FULL'}


def is_map(path: str | Path) -> bool:
    """Return whether a folder, maybe with ``~``, holds a map; a database is taken to hold one."""
    if str(path).startswith(MILVUS):
        return True
    return bool(path) and (expanded(path) / DATABASE).is_file()


def open_store(
    folder: Optional[Path], model_id: str, dim: int, config: MapConfig, read_only: bool
) -> tuple[Store, Optional[WriterLock]]:
    """Open the database in a folder (None in memory); the writer makes it if it is absent.

    :raises MapError: it cannot be opened; the message says why and what to do.
    """
    if folder is None:
        store = Store(connect(None, 'rwc'), None)
        _set_up(store, model_id, dim, config)
        return store, None
    if read_only:
        return open_for_reading(folder), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f'cannot make {folder}: {error.strerror}') from error
    lock = WriterLock(folder)
    try:
        store = Store(connect(folder / DATABASE, 'rwc'), folder / DATABASE)
        _set_up(store, model_id, dim, config)
        sync_folder(folder)
    except sqlite3.Error as error:
        lock.release()
        raise MapError(explain(error, str(folder))) from error
    except BaseException:
        lock.release()
        raise
    return store, lock


def open_for_reading(folder: Path) -> Store:
    """Open the database of an existing map read-only, also on a read-only disk.

    :raises MapError: there is none, it is damaged, or of another version.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise MapError(f'there is no map in {folder}')
    log = path.with_name(DATABASE + '-wal')
    # SQLite shares memory with writers through a file beside the database. Where that cannot be
    # made and no log is left to read, the database is complete by itself.
    is_complete = not log.exists() or log.stat().st_size == 0
    modes = ['ro', 'immutable'] if is_complete else ['ro']
    for mode in modes:
        try:
            store = Store(connect(path, mode), path)
            schema.check(store.connection, store.name)
            return store
        except sqlite3.Error as error:
            if mode == modes[-1]:
                raise MapError(explain(error, str(folder))) from error
    raise AssertionError('unreachable')


def _set_up(store: Store, model_id: str, dim: int, config: MapConfig) -> None:
    connection = store.connection
    connection.execute(f'PRAGMA page_size = {schema.PAGE_SIZE}')
    connection.execute('PRAGMA journal_mode = WAL')
    # The log is folded into the database by the maintenance thread, never inside an add.
    connection.execute('PRAGMA wal_autocheckpoint = 0')
    connection.execute(f'PRAGMA synchronous = {_SYNCHRONOUS[config.durability]}')
    if connection.execute('SELECT COUNT(*) FROM sqlite_master').fetchone()[0]:
        version = schema.check(connection, store.name, may_be_older=True)
        if version < schema.SCHEMA_VERSION:
            with store.transaction():
                schema.migrate(connection, version)
                store.put_provenance('migrate', {'from': version, 'to': schema.SCHEMA_VERSION})
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
