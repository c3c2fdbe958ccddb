# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a new map out of rows of others: what merge, prune, salvage and redescribe share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
import shutil
from types import TracebackType
from typing import Optional

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
    :param is_complete: all stored descriptors are there; else ``keep`` leaves out lost ones.
    :param descriptor: returns the (dim,) descriptor of a keyframe, None to leave it out; without
        it the stored one is copied.
    """

    keep: Callable[[str, Row], bool] = lambda table, row: True
    descriptor: Optional[Callable[[Row], Optional[Float32Array]]] = None
    is_complete: bool = True


class MapWriter:
    """A new map under construction; a context manager that leaves a complete map or none.

    :raises MapError: the folder exists already.
    """

    def __init__(self, folder: Path, model_id: str, dim: int, dtype: str) -> None:
        if folder.exists():
            raise MapError(f'{folder} exists already: choose another folder')
        self._target, self._partial = folder, folder.with_name(f'{folder.name}.partial')
        shutil.rmtree(self._partial, ignore_errors=True)  # left by a run that was killed
        config = replace(MapConfig(), dtype=dtype)
        self.store, self._lock = open_store(self._partial, model_id, dim, config, read_only=False)
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
        self.blocks.sync()
        self.blocks.close(self.keyframes)
        self.store.fold()
        self.store.connection.close()
        if self._lock is not None:
            self._lock.release()
        if error is None:
            self._partial.rename(self._target)
            sync_folder(self._target.parent)
        else:
            shutil.rmtree(self._partial)

    def copy(self, reader: MapReader, selector: Selector | None = None) -> None:
        """Add the rows of a map; its ids are kept in an empty target, else counted on.

        :raises MapError: a session is in the target already.
        """
        selector = selector or Selector()
        offsets = dict(self._offsets)
        self._kept = set()
        with self.store.transaction():
            for table in ('sessions', 'cameras', 'places'):
                self._copy_table(reader, table, selector, offsets)
        self._copy_keyframes(reader, selector, offsets)
        with self.store.transaction():
            for table in ('thumbnails', 'closures'):
                self._copy_table(reader, table, selector, offsets)
            self._repair_places()

    def note(self, action: str, detail: dict[str, object]) -> None:
        """Write down where the map comes from."""
        with self.store.transaction():
            self.store.put_provenance(action, detail)

    def _copy_table(
        self, reader: MapReader, table: str, selector: Selector, offsets: dict[str, int]
    ) -> None:
        for row in reader.rows(table):
            linked = [
                row[column] for column, other in _SHIFTED[table].items() if other == 'keyframes'
            ]
            is_kept = table == 'places' or all(key in self._kept for key in linked)
            if not is_kept or not selector.keep(table, row):
                continue
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
        # Those who leave out damaged descriptors, or replace all, need not have them complete.
        blocks = None if selector.descriptor else reader.blocks(selector.is_complete)
        batch: list[Row] = []
        for number, row in enumerate(reader.rows('keyframes')):
            batch.append({**row, 'row': number})
            if len(batch) == _BATCH:
                self._copy_batch(batch, blocks, selector, offsets)
                batch = []
        self._copy_batch(batch, blocks, selector, offsets)

    def _copy_batch(
        self, batch: list[Row], blocks: Optional[DescriptorBlocks], selector: Selector,
        offsets: dict[str, int],
    ) -> None:
        with self.store.transaction():
            for row in batch:
                number = row.pop('row')
                if not selector.keep('keyframes', row):
                    continue
                if selector.descriptor is None:
                    assert blocks is not None
                    vector = blocks.read(np.array([number]))[0]
                else:
                    found = selector.descriptor(row)
                    if found is None:
                        continue
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
