# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The registry of published models, ``models/registry.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml

from netvlad_ros.errors import ModelError


@dataclass(frozen=True)
class RegistryEntry:
    """One published model.

    :param url: http(s):// or file:// of the original file; '' for a bundle shipped with us.
    :param size_bytes: of that file; None if unknown.
    :param sha256: of that file, lower-case hex; None if unknown.
    :param options: arguments of the importer, such as ``dim``.
    """

    name: str
    url: str = ''
    size_bytes: Optional[int] = None
    sha256: Optional[str] = None
    licence: str = 'unknown'
    description: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Registry:
    """Names of models, and which of them is the default ('' if none)."""

    default: str = ''
    models: Mapping[str, RegistryEntry] = field(default_factory=dict)


def read_registry(folder_or_file: Optional[Path]) -> Registry:
    """Return the registry in a folder or file; an empty one for None.

    :raises ModelError: the file is missing or not as documented.
    """
    if folder_or_file is None:
        return Registry()
    path = folder_or_file / 'registry.yaml' if folder_or_file.is_dir() else folder_or_file
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        models = {
            str(name): RegistryEntry(name=str(name), **(values or {}))
            for name, values in (content.get('models') or {}).items()
        }
        for entry in models.values():
            _check_digest(entry)
        return Registry(default=content.get('default') or '', models=models)
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f'cannot read model registry {str(path)!r}: {error}') from error


def _check_digest(entry: RegistryEntry) -> None:
    """Refuse what YAML made a number of: digits without quotes."""
    digest = entry.sha256
    if digest is not None and not (isinstance(digest, str) and len(digest) == 64):
        raise ValueError(f'sha256 of {entry.name!r} is {digest!r}, expected 64 hex digits, quoted')
