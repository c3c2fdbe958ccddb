# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Progress bars with an ETA, shown on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional, TypeVar

from tqdm import tqdm

T = TypeVar('T')


def progress(
    iterable: Iterable[T], total: Optional[int] = None, unit: str = 'it', description: str = ''
) -> Iterator[T]:
    """Yield from ``iterable`` and draw a bar on stderr if that is a terminal."""
    yield from tqdm(
        iterable, total=total, unit=f' {unit}', desc=description, dynamic_ncols=True, disable=None
    )
