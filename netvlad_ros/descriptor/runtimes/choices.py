# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured to be fastest on this machine, kept between runs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
import platform
from typing import Optional

from netvlad_ros.descriptor.locate import cache_folder

_log = logging.getLogger(__name__)


class ChoiceCache:
    """A small JSON file; one that is missing, damaged or read-only only costs the time."""

    def __init__(self) -> None:
        self._path = cache_folder() / 'runtimes.json'
        self._machine = _machine()

    def get(self, key: str) -> Optional[str]:
        """Return the remembered choice, or None."""
        choice = self._read().get(f'{self._machine}; {key}')
        return choice if isinstance(choice, str) else None

    def put(self, key: str, choice: str) -> None:
        """Remember a choice, if the folder can be written."""
        content = {**self._read(), f'{self._machine}; {key}': choice}
        partial = self._path.with_name(f'runtimes.{os.getpid()}.partial')
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(content, indent=1), encoding='utf-8')
            partial.replace(self._path)
        except OSError as error:
            _log.info('the choice of a runtime is not remembered: %s', error)

    def _read(self) -> dict[str, object]:
        try:
            content = json.loads(self._path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _machine() -> str:
    """Return a name of the processor: a home folder may serve several machines."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                model = line.partition(':')[2].strip()
                break
    except OSError:
        pass
    return f'{model}, {os.cpu_count()} CPUs'
