# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can act on. The command line prints them in one line and exits with 1."""

from __future__ import annotations


class NetvladError(Exception):
    """Base of every error this package raises on purpose; the message says what to do."""


class ConfigError(NetvladError):
    """A setting has a value that is not allowed."""


class InputError(NetvladError):
    """An image, pose, bag or dataset is missing, damaged or of an unknown kind."""


class ModelError(NetvladError):
    """A model bundle is missing, damaged, unknown or does not fit the map."""


class MapError(NetvladError):
    """A stored map is missing, damaged, locked, of another model or of a newer version."""
