# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a new map out of rows of others: what merge, prune, salvage and redescribe share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
import errno
from itertools import islice
from pathlib import Path
import shutil
import sqlite3
from types import TracebackType
from typing import Optional, TypeVar

import numpy as np

from netvlad_ros.config import MapConfig
from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.block_file import sync_folder
from netvlad_ros.keyframes.blocks import DescriptorBlocks
from netvlad_ros.keyframes.opening import open_store
from netvlad_ros.keyframes.reader import MapReader, Row
from netvlad_ros.types import Float32Array

_BATCH = 512
_LOG_PAGES = 4096  # the log is folded into the database when it has this many
_Item = TypeVar('_Item')
# Columns that hold numbers which a second map counts anew: column -> table counted.
_SHIFTED = {
    'sessions': {'id': 'sessions'},
    'cameras': {'id': 'cameras', 'session_id': 'sessions'},
    'places': {
        'id': 'places', 'founder_id': 'keyframes', 'representative_id': 'keyframes',
        'merged_into': 'places',
    },
    'keyframes': {
        'id': 'keyframes', 'session_id': 'sessions', 'camera_id': 'cameras',
        'place_id': 'places', 'origin_place_id': 'places',
    },
    'thumbnails': {'keyframe_id': 'keyframes'},
    'closures': {'query_id': 'keyframes', 'match_id': 'keyframes'},
}


@dataclass(frozen=True)
class Selector:
    """Which rows of a source to take.

    :param keep: tells by table and key whether a row is taken.
    :param descriptor: returns the (dim,) descriptor of a keyframe, None to leave it out; without
        it the stored one is copied.
    """

    keep: Callable[[str, Row], bool] = lambda table, row: True
    descriptor: Optional[Callable[[Row], Optional[Float32Array]]] = None


class MapWriter:
    """A new map under construction; a context manager that leaves a complete map or nothing.

    :raises MapError: the folder exists already, or the disk does not take the map.
    """

    def __init__(self, folder: Path, model_id: str, dim: int, dtype: str) -> None:
        if folder.exists():
            raise MapError(f'{folder} exists already: choose another folder')
        self._target, self._partial = folder, folder.with_name(f'{folder.name}.partial')
        shutil.rmtree(self._partial, ignore_errors=True)  # left by a run that was killed
        config = replace(MapConfig(), dtype=dtype)
        try:
            self.store, self._lock = open_store(
                self._partial, model_id, dim, config, read_only=False
            )
        except (MapError, OSError) as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise MapError(_explain(error, folder)) from error
        # Without, all that is copied would be in the log as well until the end: twice the room.
        self.store.connection.execute(f'PRAGMA wal_autocheckpoint = {_LOG_PAGES}')
        rows = int(self.store.meta()['rows_per_block'])
        self.model_id = model_id
        self.blocks = DescriptorBlocks(self._partial, dim, dtype, 0, rows=rows)
        self.keyframes = 0
        self._offsets = dict.fromkeys(schema.TABLES, 0)
        self._kept: set[int] = set()

    def __enter__(self) -> MapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self.blocks.sync()
                self.blocks.close(self.keyframes)
                self.store.fold()
            except (MapError, OSError, sqlite3.Error) as failure:
                error = failure
        if error is not None:
            with suppress(OSError):  # a full disk must not keep the rest from being removed
                self.blocks.close(0)
        self.store.connection.close()
        if self._lock is not None:
            self._lock.release()
        if error is None:
            try:
                self._partial.rename(self._target)
                sync_folder(self._target.parent)
                return
            except OSError as failure:
                error = failure
        shutil.rmtree(self._partial, ignore_errors=True)
        if isinstance(error, (MapError, OSError, sqlite3.Error)):
            raise MapError(_explain(error, self._target)) from error

    def copy(self, reader: MapReader, selector: Selector | None = None) -> None:
        """Add the rows of a map; its ids are kept in an empty target, else counted on.

        :raises MapError: a session is in the target already.
        """
        selector = selector or Selector()
        offsets = dict(self._offsets)
        self._kept = set()
        for table in ('sessions', 'cameras', 'places'):
            self._copy_table(reader, table, selector, offsets)
        self._copy_keyframes(reader, selector, offsets)
        for table in ('thumbnails', 'closures'):
            self._copy_table(reader, table, selector, offsets)
        with self.store.transaction():
            self._repair_places()

    def note(self, action: str, detail: dict[str, object]) -> None:
        """Write down where the map comes from."""
        with self.store.transaction():
            self.store.put_provenance(action, detail)

    def _copy_table(
        self, reader: MapReader, table: str, selector: Selector, offsets: dict[str, int]
    ) -> None:
        for batch in _batches(reader.rows(table)):
            with self.store.transaction():
                for row in batch:
                    self._copy_row(reader, table, row, selector, offsets)

    def _copy_row(
        self, reader: MapReader, table: str, row: Row, selector: Selector, offsets: dict[str, int]
    ) -> None:
        linked = [row[column] for column, other in _SHIFTED[table].items() if other == 'keyframes']
        is_kept = table == 'places' or all(key in self._kept for key in linked)
        if not is_kept or not selector.keep(table, row):
            return
        if table == 'sessions':
            row['model_id'] = self.model_id
            self._check_new_session(str(row['uuid']), reader)
        self._put(table, row, offsets)

    def _check_new_session(self, uuid: str, reader: MapReader) -> None:
        if self.store.rows('SELECT 1 FROM sessions WHERE uuid = ?', uuid):
            raise MapError(
                f'session {uuid} of {reader.folder} is already in the map: the two overlap'
            )

    def _put(self, table: str, row: Row, offsets: dict[str, int]) -> None:
        for column, other in _SHIFTED[table].items():
            if row[column] is not None:
                row[column] += offsets[other]
                if self._is_key(table, column):
                    self._offsets[other] = max(self._offsets[other], row[column] + 1)
        self.store.put(table, *row.values())

    @staticmethod
    def _is_key(table: str, column: str) -> bool:
        return column == 'id' and table in {'sessions', 'cameras', 'places', 'keyframes'}

    def _copy_keyframes(
        self, reader: MapReader, selector: Selector, offsets: dict[str, int]
    ) -> None:
        # Those who bring the descriptors need not have the stored ones complete.
        blocks = None if selector.descriptor else reader.blocks()
        for batch in _batches(enumerate(reader.rows('keyframes'))):
            with self.store.transaction():
                for number, row in batch:
                    self._copy_keyframe(number, row, blocks, selector, offsets)

    def _copy_keyframe(
        self, number: int, row: Row, blocks: Optional[DescriptorBlocks], selector: Selector,
        offsets: dict[str, int],
    ) -> None:
        """Copy a keyframe with its descriptor, which is row ``number`` of the blocks."""
        if not selector.keep('keyframes', row):
            return
        if selector.descriptor is None:
            assert blocks is not None
            vector = blocks.read(np.array([number]))[0]
        else:
            found = selector.descriptor(row)
            if found is None:
                return
            vector = found
        self._kept.add(row['id'])
        new_id = row['id'] + offsets['keyframes']
        stored = self.blocks.encode(vector)
        row['descriptor_crc'] = self.blocks.write(self.keyframes, new_id, stored)
        self._put('keyframes', row, offsets)
        self.keyframes += 1

    def _repair_places(self) -> None:
        """Give places whose representative was left out another one."""
        for place_id, founder, visits, merged, first in self.store.rows(
            'SELECT p.id, p.founder_id, p.visits, p.merged_into, MIN(k.id) FROM places p '
            'JOIN keyframes k ON k.place_id = p.id '
            'WHERE p.representative_id NOT IN (SELECT id FROM keyframes) GROUP BY p.id'
        ):
            self.store.put('places', place_id, founder, first, visits, merged)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield the items in lists: what one transaction writes."""
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _explain(error: MapError | OSError | sqlite3.Error, target: Path) -> str:
    """Return why a map was not written, and what to do."""
    cause = error.__cause__ if isinstance(error, MapError) else error
    is_full = isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}
    if is_full or (isinstance(cause, sqlite3.Error) and 'full' in str(cause)):
        return f'{target} was not written: the disk is full; make room or choose another folder'
    return f'{target} was not written: {error}'
