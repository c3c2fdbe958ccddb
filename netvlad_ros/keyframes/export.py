# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a stored map as CSV, TUM trajectory, npz, faiss index or HTML page."""

from __future__ import annotations

from collections.abc import Callable
import csv
from pathlib import Path

import faiss
import numpy as np

from netvlad_ros.errors import MapError
from netvlad_ros.geometry import tum_row, xyz_quat_from_pose
from netvlad_ros.keyframes.export_html import write_html
from netvlad_ros.keyframes.opening import is_map
from netvlad_ros.keyframes.reader import MapReader

CSV_COLUMNS = (
    'id', 'stamp_ns', 'session', 'place_id', 'tx', 'ty', 'tz', 'qx', 'qy', 'qz', 'qw'
)


def export(folder: Path, kind: str, output: Path) -> int:
    """Write a map in one of the formats of ``FORMATS``; returns the number of keyframes written.

    A file that is there already is replaced once the new one is complete.

    :raises MapError: there is no map or it is damaged, or the output lies in a map.
    :raises OSError: the output cannot be written.
    """
    with MapReader(folder) as reader:
        target = output.resolve()
        if folder.resolve() in target.parents or is_map(target.parent):
            raise MapError(f'{output} lies in the folder of a map: choose another folder')
        if output.exists() and not output.is_file():
            return FORMATS[kind](reader, output)  # a pipe or a device is not to be replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f'{target.name}.partial')
        try:
            count = FORMATS[kind](reader, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return count


def _write_csv(reader: MapReader, output: Path) -> int:
    """All keyframes; the pose is empty without odometry."""
    keyframes = reader.store.keyframes()
    with output.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for keyframe in keyframes:
            pose = [''] * 7
            if keyframe.T_odom_base is not None:
                xyz, quat_xyzw = xyz_quat_from_pose(keyframe.T_odom_base)
                pose = [repr(float(value)) for value in (*xyz, *quat_xyzw)]
            writer.writerow(
                [keyframe.id, keyframe.stamp_ns, keyframe.session, keyframe.place_id, *pose]
            )
    return len(keyframes)


def _write_tum(reader: MapReader, output: Path) -> int:
    """Keyframes with odometry, by stamp."""
    rows = [
        (keyframe.stamp_ns, keyframe.T_odom_base)
        for keyframe in reader.store.keyframes()
        if keyframe.T_odom_base is not None
    ]
    rows.sort(key=lambda row: row[0])
    with output.open('w') as file:
        file.writelines(tum_row(*row) for row in rows)
    return len(rows)


def _write_npz(reader: MapReader, output: Path) -> int:
    """Arrays ids, stamps_ns, sessions, place_ids, T_odom_base (NaN without), descriptors."""
    keyframes = reader.store.keyframes()
    missing = np.full((4, 4), np.nan)
    poses = [missing if k.T_odom_base is None else k.T_odom_base for k in keyframes]
    with output.open('wb') as file:  # a path without .npz would get one
        np.savez(
            file,
            ids=np.array([k.id for k in keyframes], np.int64),
            stamps_ns=np.array([k.stamp_ns for k in keyframes], np.int64),
            sessions=np.array([k.session for k in keyframes], np.str_),
            place_ids=np.array([k.place_id for k in keyframes], np.int64),
            T_odom_base=np.array(poses, np.float64).reshape(-1, 4, 4),
            descriptors=np.concatenate(
                [np.empty((0, reader.dim), np.float32), *reader.descriptors()]
            ),
            model_id=np.array(reader.model_id),
        )
    return len(keyframes)


def _write_faiss(reader: MapReader, output: Path) -> int:
    """IndexIDMap2 over IndexFlatIP; the ids are those of the keyframes."""
    ids = np.array([row[0] for row in reader.store.rows('SELECT id FROM keyframes ORDER BY id')])
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(reader.dim))
    start = 0
    for vectors in reader.descriptors():
        index.add_with_ids(vectors, ids[start : start + len(vectors)].astype(np.int64))
        start += len(vectors)
    # faiss itself does not notice a disk that is full.
    with output.open('wb') as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
    return start


FORMATS: dict[str, Callable[[MapReader, Path], int]] = {
    'csv': _write_csv,
    'tum': _write_tum,
    'npz': _write_npz,
    'faiss': _write_faiss,
    'html': write_html,
}
