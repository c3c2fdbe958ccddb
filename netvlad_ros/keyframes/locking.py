# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One writer per map: a lock that the kernel drops when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
import socket

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes.store import utc_now

LOCK_FILE = 'writer.lock'


class WriterLock:
    """Held from construction to ``release``.

    :raises MapError: another writer holds it (the message says who), or the folder is read-only.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MapError(
                f'{folder} cannot be written ({error.strerror}): open the map read-only'
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _describe(os.pread(self._fd, 4096, 0))
            os.close(self._fd)
            raise MapError(
                f'{folder} is being written by {holder}: end that process or open the map '
                f'read-only'
            ) from error
        who = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': utc_now()}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(who).encode(), 0)

    def release(self) -> None:
        """Let the next writer in."""
        os.close(self._fd)


def _describe(content: bytes) -> str:
    try:
        who = json.loads(content)
        return f'process {who["pid"]} on {who["host"]} since {who["since"]}'
    except (ValueError, KeyError, TypeError):
        return 'another process'
