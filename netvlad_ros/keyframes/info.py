# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a stored map has, in numbers and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netvlad_ros.keyframes.reader import MapReader
from netvlad_ros.types import ClosureStatus

_MOST_VISITED = 10


def describe_map(folder: Path) -> dict[str, Any]:
    """Return properties, sessions, places and history of a map as plain values.

    :raises MapError: there is no map or it is damaged.
    """
    with MapReader(folder) as reader:
        rows = reader.store.rows
        status = dict(rows('SELECT status, COUNT(*) FROM closures GROUP BY status'))
        sizes = [path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file()]
        thumbnails = rows('SELECT COUNT(*), COALESCE(SUM(LENGTH(jpeg)), 0) FROM thumbnails')[0]
        sessions = rows(
            'SELECT s.uuid, s.name, s.created, COUNT(k.id), MIN(k.stamp_ns), MAX(k.stamp_ns) '
            'FROM sessions s LEFT JOIN keyframes k ON k.session_id = s.id '
            'GROUP BY s.id ORDER BY s.id'
        )
        return {
            'map': str(folder),
            'model_id': reader.model_id,
            'dim': reader.dim,
            'dtype': reader.dtype,
            'keyframes': reader.count('keyframes'),
            'bytes_on_disk': sum(sizes),
            'thumbnails': thumbnails[0],
            'thumbnail_bytes': thumbnails[1],
            'closures': {
                kind.name.lower(): status.get(int(kind), 0) for kind in ClosureStatus
            },
            'sessions': [
                {
                    'uuid': uuid, 'name': name, 'created': created, 'keyframes': count,
                    'duration_s': 0.0 if first is None else (last - first) / 1e9,
                }
                for uuid, name, created, count, first, last in sessions
            ],
            'places': rows('SELECT COUNT(DISTINCT place_id) FROM keyframes')[0][0],
            'places_visited_again': rows(
                'SELECT COUNT(*) FROM places WHERE visits > 1 AND merged_into IS NULL'
            )[0][0],
            'most_visited_places': [
                {'place': place, 'visits': visits, 'keyframes': count, 'represented_by': first}
                for place, visits, first, count in rows(
                    'SELECT p.id, p.visits, p.representative_id, COUNT(k.id) FROM places p '
                    'JOIN keyframes k ON k.place_id = p.id WHERE p.visits > 1 '
                    'GROUP BY p.id ORDER BY p.visits DESC, p.id LIMIT ?', _MOST_VISITED,
                )
            ],
            'merged_places': [
                {'place': place, 'into': into} for place, into in rows(
                    'SELECT id, merged_into FROM places WHERE merged_into IS NOT NULL ORDER BY id'
                )
            ],
            'history': [
                {'at': at, 'action': action, 'detail': detail}
                for at, action, detail in rows(
                    'SELECT at, action, detail FROM provenance ORDER BY id'
                )
            ],
        }
