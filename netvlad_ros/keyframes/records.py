# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What goes into and comes out of the map besides keyframes: sessions, exclusions, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Session:
    """One run of the robot.

    :param uuid: unique among all maps.
    :param name: what a person calls it; '' if nobody did.
    :param model_id: of the descriptors that the run added.
    :param created: wall clock at its beginning, ISO 8601 UTC.
    """

    uuid: str
    name: str
    model_id: str
    created: str


@dataclass(frozen=True)
class Exclusion:
    """Keyframes that a search must not return; it acts inside the search.

    A keyframe is excluded if any of these holds:

    :param session: and ``newer_than_ns``: it is of this session and its stamp is larger.
    :param ids: its id is among these.
    :param camera: it was taken by the camera of this name.
    :param whole_session: it is of this session, whatever its stamp.
    """

    session: Optional[str] = None
    newer_than_ns: Optional[int] = None
    ids: frozenset[int] = frozenset()
    camera: Optional[str] = None
    whole_session: Optional[str] = None


@dataclass(frozen=True)
class Neighbour:
    """A stored keyframe that is similar to a query.

    :param similarity: inner product of the unit descriptors, in [-1, 1].
    """

    keyframe_id: int
    similarity: float


@dataclass(frozen=True)
class Entry:
    """What an exclusion can ask of a keyframe."""

    keyframe_id: int
    stamp_ns: int
    session: str
    camera: str
