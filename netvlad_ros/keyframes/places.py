# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Places: which keyframes show the same spot, and how often the robot was there.

- A keyframe added without a place founds one; a keyframe added with a place joins it. Ids count
  up from 0, never change and are never given twice.
- A keyframe begins a new visit to its place unless the place has a keyframe of the same session
  at most ``visit_gap_s`` older. Without such a keyframe the robot had been elsewhere.
- The surest VERIFIED closure of a keyframe that founded its place merges the younger (larger id)
  of the two places into the older. The younger id stays valid as a name of the older. Closures of
  other members, and the less sure ones, merge nothing: they would chain a street into one place.
- A REJECTED closure between keyframes of one place splits it if nothing else holds the two
  together: members are linked by their closures that are not REJECTED, and a member that has no
  closure to another member is linked to the founder of the place that it was added to. The group
  with the oldest keyframe keeps the place. Another group gets back the place that its oldest
  keyframe founded and that had been merged, or else a new one.
- The representative is the oldest member; prune never removes it while the place has others.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Optional

from netvlad_ros.errors import MapError
from netvlad_ros.keyframes import schema
from netvlad_ros.keyframes.store import Store
from netvlad_ros.types import ClosureStatus, LoopClosure, PlaceVisit

_MOVE = (
    'UPDATE keyframes SET place_id = :place, crc = row_crc('  # noqa: S608
    + ', '.join(
        ':place' if name == 'place_id' else name for name in schema.columns('keyframes')
    )
    + ') WHERE id = :id'
)


class Places:
    """Place rows of a store; every method that changes any runs inside a transaction."""

    def __init__(self, store: Store, visit_gap_ns: int) -> None:
        self._store, self._visit_gap_ns = store, visit_gap_ns

    def resolve(self, place_id: int) -> int:
        """Return the place that an id, maybe of a merged place, stands for.

        :raises MapError: no keyframe ever had this place.
        """
        seen = place_id
        while True:
            rows = self._store.rows('SELECT merged_into FROM places WHERE id = ?', seen)
            if not rows:
                raise MapError(f'place {place_id!r} is not in the map')
            if rows[0][0] is None:
                return seen
            seen = rows[0][0]

    def next_id(self) -> int:
        """Return the id of the next new place."""
        return self._store.next_number('places')

    def join(
        self, place_id: Optional[int], keyframe_id: int, stamp_ns: int, session_number: int
    ) -> PlaceVisit:
        """Count a keyframe that is about to be stored to a place, None for a new place."""
        if place_id is None:
            place_id = self.next_id()
            self._store.put('places', place_id, keyframe_id, keyframe_id, 1, None)
            return PlaceVisit(place_id, True, 1)
        place_id = self.resolve(place_id)
        founder, representative, visits = self._store.rows(
            'SELECT founder_id, representative_id, visits FROM places WHERE id = ?', place_id
        )[0]
        recent = self._store.rows(
            'SELECT 1 FROM keyframes WHERE place_id = ? AND session_id = ? '
            'AND stamp_ns BETWEEN ? AND ? LIMIT 1',
            place_id, session_number, stamp_ns - self._visit_gap_ns, stamp_ns,
        )
        if not recent:
            visits += 1
            self._store.put('places', place_id, founder, representative, visits, None)
        return PlaceVisit(place_id, False, visits)

    def apply(self, closures: Sequence[LoopClosure]) -> None:
        """Merge and split the places of closures that were just stored, as their status says."""
        rejected: set[int] = set()
        surest: dict[int, LoopClosure] = {}
        for closure in closures:
            query = closure.query.id
            if closure.status is ClosureStatus.REJECTED:
                if self._place_of(query) == self._place_of(closure.match.id):
                    rejected.add(query)
            elif closure.status is ClosureStatus.VERIFIED and (
                query not in surest or _score(closure) > _score(surest[query])
            ):
                surest[query] = closure
        for query, closure in surest.items():
            a, b = self._place_of(query), self._place_of(closure.match.id)
            founder = self._store.rows('SELECT founder_id FROM places WHERE id = ?', a)[0][0]
            if a != b and query == founder:
                self._merge(max(a, b), min(a, b))
        # One look at each place, after all merges: a split reads the closures of every member.
        for place_id in sorted({self._place_of(member) for member in rejected}):
            self._split(place_id)

    def members(self, place_id: int) -> list[int]:
        """Return the ids of the keyframes of a place, the oldest first."""
        sql = 'SELECT id FROM keyframes WHERE place_id = ? ORDER BY id'
        return [row[0] for row in self._store.rows(sql, self.resolve(place_id))]

    def _place_of(self, keyframe_id: int) -> int:
        rows = self._store.rows('SELECT place_id FROM keyframes WHERE id = ?', keyframe_id)
        return int(rows[0][0])

    def _merge(self, younger: int, older: int) -> None:
        for member in self.members(younger):
            self._store.connection.execute(_MOVE, {'place': older, 'id': member})
        self._refresh(younger, merged_into=older)
        self._refresh(older)

    def _split(self, place_id: int) -> None:
        groups = self._groups(place_id)
        for group in groups[1:]:
            target = self._place_of_group(group, place_id)
            for member in group:
                self._store.connection.execute(_MOVE, {'place': target, 'id': member})
            self._refresh(target)
        if len(groups) > 1:
            self._refresh(place_id)

    def _place_of_group(self, group: list[int], place_id: int) -> int:
        rows = self._store.rows(
            'SELECT id FROM places WHERE founder_id = ? AND merged_into IS NOT NULL', group[0]
        )
        if rows:
            return int(rows[0][0])
        new = self.next_id()
        self._store.put('places', new, group[0], group[0], 1, None)
        return new

    def _groups(self, place_id: int) -> list[list[int]]:
        """Return the members that hold together, the group with the oldest first."""
        members = self.members(place_id)
        parent = {member: member for member in members}

        def root(member: int) -> int:
            while parent[member] != member:
                member = parent[member]
            return member

        def link(a: int, b: int) -> None:
            low, high = sorted((root(a), root(b)))
            parent[high] = low

        closed = set()
        for query in members:
            # By key and member by member: a join over the place made SQLite read every closure.
            for match, status in self._store.rows(
                'SELECT match_id, status FROM closures WHERE query_id = ?', query
            ):
                if match not in parent:
                    continue
                # Only the later keyframe joined because of the closure; the match was there.
                closed.add(max(query, match))
                if status != ClosureStatus.REJECTED:
                    link(query, match)
        for member, founder in self._store.rows(
            'SELECT k.id, p.founder_id FROM keyframes k JOIN places p ON p.id = k.origin_place_id '
            'WHERE k.place_id = ?', place_id,
        ):
            if member not in closed and founder in parent:
                link(member, founder)
        groups: dict[int, list[int]] = {}
        for member in members:
            groups.setdefault(root(member), []).append(member)
        return [groups[first] for first in sorted(groups)]

    def _refresh(self, place_id: int, merged_into: Optional[int] = None) -> None:
        founder = self._store.rows('SELECT founder_id FROM places WHERE id = ?', place_id)[0][0]
        members = self._store.rows(
            'SELECT id, session_id, stamp_ns FROM keyframes WHERE place_id = ? '
            'ORDER BY session_id, stamp_ns', place_id,
        )
        visits, last = 0, (None, 0)
        for _, session, stamp_ns in members:
            if session != last[0] or stamp_ns - last[1] > self._visit_gap_ns:
                visits += 1
            last = (session, stamp_ns)
        representative = min((row[0] for row in members), default=founder)
        self._store.put('places', place_id, founder, representative, visits, merged_into)


def _score(closure: LoopClosure) -> float:
    return 0.0 if math.isnan(closure.verification_score) else closure.verification_score
