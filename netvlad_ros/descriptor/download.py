# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Downloads that resume and are verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import hashlib
from pathlib import Path
from typing import Optional
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from netvlad_ros.descriptor.registry import RegistryEntry
from netvlad_ros.errors import ModelError

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
SCHEMES = ('https', 'http', 'file')

# As ``netvlad_ros.cli.progress.progress``: iterable, total, unit, description.
Progress = Callable[[Iterable[bytes], Optional[int], str, str], Iterable[bytes]]


def no_progress(
    blocks: Iterable[bytes], total: Optional[int], unit: str, description: str
) -> Iterable[bytes]:
    """Return the blocks as they are."""
    return blocks


def download(entry: RegistryEntry, path: Path, progress: Progress = no_progress) -> None:
    """Fetch the file of a registry entry, from where an earlier attempt stopped.

    :param path: where the verified file will be; ``path.part`` holds an unfinished one.
    :raises ModelError: it cannot be fetched, or differs in size or SHA-256 from the entry.
    """
    scheme = urlsplit(entry.url).scheme
    if scheme not in SCHEMES:
        raise ModelError(
            f'url of model {entry.name!r} is {entry.url!r}, allowed: {", ".join(SCHEMES)}'
        )
    part = path.with_name(f'{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and part.stat().st_size == entry.size_bytes:
            complete = True
        else:
            complete = _fetch(entry, part, progress)
    except (OSError, URLError) as error:
        raise ModelError(
            f'cannot download {entry.url!r}: {error}; run the command again to resume'
        ) from error
    if not complete:
        raise ModelError(f'{entry.url!r} ended early: run the command again to resume')
    _verify(entry, part)
    part.replace(path)


def _fetch(entry: RegistryEntry, part: Path, progress: Progress) -> bool:
    """Append what is missing to ``part`` and return whether all of it came."""
    have = part.stat().st_size if part.is_file() else 0
    request = Request(entry.url)  # noqa: S310 (the scheme is checked by the caller)
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except HTTPError as error:
        # 416: nothing is left; whether the part is the file is for the verification to say.
        if error.code == 416 and have:
            return True
        raise
    with response:
        resumes = getattr(response, 'status', None) == 206
        length = response.headers.get('Content-Length')
        expected = None if length is None else int(length) + (have if resumes else 0)
        with part.open('ab' if resumes else 'wb') as file:
            blocks = iter(lambda: response.read(_BLOCK_BYTES), b'')
            count = None if length is None else -(-int(length) // _BLOCK_BYTES)
            for block in progress(blocks, count, 'MiB', entry.name):
                file.write(block)
    return expected is None or part.stat().st_size == expected


def _verify(entry: RegistryEntry, part: Path) -> None:
    size = part.stat().st_size
    if entry.size_bytes is not None and size != entry.size_bytes:
        part.unlink()
        raise ModelError(f'{entry.url!r} has {size} bytes, expected {entry.size_bytes}')
    if entry.sha256 is None:
        return
    digest = sha256_of(part)
    if digest != entry.sha256.lower():
        part.unlink()
        raise ModelError(
            f'{entry.url!r} has SHA-256 {digest}, expected {entry.sha256}: the file changed or '
            'was damaged on the way'
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open('rb') as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
