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
  closure to an older member is linked to the founder of the place that it was added to, or to the
  oldest member that was added to it if the founder is gone. The group of the query leaves, or that
  of the match if the query's has the oldest member. It gets back the place that its oldest
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

# The closures of a keyframe with older ones, and with younger ones. By key: a join over the place
# made SQLite read every closure.
_OLDER = (
    'SELECT match_id, status FROM closures WHERE query_id = ?1 AND match_id < ?1 UNION ALL '
    'SELECT query_id, status FROM closures WHERE match_id = ?1 AND query_id < ?1'
)
_YOUNGER = _OLDER.replace('<', '>')

# The place that a keyframe was added to, its founder, and where that is now.
_ORIGIN = (
    'SELECT k.origin_place_id, f.id, f.place_id FROM keyframes k LEFT JOIN places p '
    'ON p.id = k.origin_place_id LEFT JOIN keyframes f ON f.id = p.founder_id WHERE k.id = ?'
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
        # The newest first: within a visit one of the last members is recent, of maybe thousands.
        recent = self._store.rows(
            'SELECT 1 FROM keyframes WHERE place_id = ? AND session_id = ? '
            'AND stamp_ns BETWEEN ? AND ? ORDER BY id DESC LIMIT 1',
            place_id, session_number, stamp_ns - self._visit_gap_ns, stamp_ns,
        )
        if not recent:
            visits += 1
            self._store.put('places', place_id, founder, representative, visits, None)
        return PlaceVisit(place_id, False, visits)

    def apply(self, closures: Sequence[LoopClosure]) -> None:
        """Merge and split the places of closures that were just stored, as their status says."""
        surest: dict[int, LoopClosure] = {}
        for closure in closures:
            query = closure.query.id
            if closure.status is ClosureStatus.VERIFIED and (
                query not in surest or _score(closure) > _score(surest[query])
            ):
                surest[query] = closure
        for query, closure in surest.items():
            a, b = self._place_of(query), self._place_of(closure.match.id)
            founder = self._store.rows('SELECT founder_id FROM places WHERE id = ?', a)[0][0]
            if a != b and query == founder:
                self._merge(max(a, b), min(a, b))
        for closure in closures:
            if closure.status is ClosureStatus.REJECTED:
                self._split(closure.query.id, closure.match.id)

    def members(self, place_id: int) -> list[int]:
        """Return the ids of the keyframes of a place, the oldest first."""
        sql = 'SELECT id FROM keyframes WHERE place_id = ? ORDER BY id'
        return [row[0] for row in self._store.rows(sql, self.resolve(place_id))]

    def restore_lost(self) -> None:
        """Make places anew whose rows are lost, from the keyframes that name them."""
        founded = self._store.rows(
            'SELECT origin_place_id, MIN(id), place_id FROM keyframes '
            'WHERE origin_place_id NOT IN (SELECT id FROM places) GROUP BY origin_place_id'
        )
        lived_in = self._store.rows(
            'SELECT place_id, MIN(id) FROM keyframes '
            'WHERE place_id NOT IN (SELECT id FROM places) GROUP BY place_id'
        )
        # Without members a place was merged into the one where its founder is now.
        lost = {place_id: (founder, into) for place_id, founder, into in founded}
        for place_id, first in lived_in:
            lost[place_id] = lost.get(place_id, (first,))[0], None
        for place_id, (founder, into) in lost.items():
            self._store.put('places', place_id, founder, founder, 1, into)
            self._refresh(place_id, into)

    def _place_of(self, keyframe_id: int) -> int:
        rows = self._store.rows('SELECT place_id FROM keyframes WHERE id = ?', keyframe_id)
        return int(rows[0][0])

    def _is_in(self, keyframe_id: int, place_id: int) -> bool:
        """Say whether a place has a keyframe, which may be lost or another robot's."""
        sql = 'SELECT 1 FROM keyframes WHERE id = ? AND place_id = ?'
        return bool(self._store.rows(sql, keyframe_id, place_id))

    def _merge(self, younger: int, older: int) -> None:
        for member in self.members(younger):
            self._store.connection.execute(_MOVE, {'place': older, 'id': member})
        self._refresh(younger, merged_into=older)
        self._refresh(older)

    def _split(self, query: int, match: int) -> None:
        """Part two members of a place, each with its group, if nothing holds them together."""
        place_id = self._place_of(query)
        if self._place_of(match) != place_id:
            return
        if self._end(query, place_id) == self._end(match, place_id):
            return  # most often; the rest looks at every member
        anchors = self._anchors(place_id)
        group = self._group(query, anchors)
        if match in group:
            return
        if min(anchors) in group:
            group = self._group(match, anchors)
        target = self._place_of_group(group, place_id)
        for member in group:
            self._store.connection.execute(_MOVE, {'place': target, 'id': member})
        self._refresh(target)
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

    def _end(self, member: int, place_id: int) -> tuple[str, int]:
        """Return where the links of a member to ever older members lead; equal ends are linked."""
        while True:
            older = [
                (other, status) for other, status in self._store.rows(_OLDER, member)
                if self._is_in(other, place_id)
            ]
            if not older:
                origin, founder, founder_place = self._store.rows(_ORIGIN, member)[0]
                if founder_place != place_id or founder >= member:
                    return 'place', origin
                member = founder
                continue
            linked = [other for other, status in older if status != ClosureStatus.REJECTED]
            if not linked:
                return 'keyframe', member
            member = min(linked)

    def _anchors(self, place_id: int) -> dict[int, int]:
        """Return by member the member that it is linked to without closures, maybe itself."""
        rows = self._store.rows(
            'SELECT k.id, k.origin_place_id, p.founder_id FROM keyframes k '
            'LEFT JOIN places p ON p.id = k.origin_place_id WHERE k.place_id = ? ORDER BY k.id',
            place_id,
        )
        members = {row[0] for row in rows}
        oldest: dict[int, int] = {}
        return {
            member: founder if founder in members else oldest.setdefault(origin, member)
            for member, origin, founder in rows
        }

    def _group(self, start: int, anchors: dict[int, int]) -> list[int]:
        """Return the members that hold together with one of them, the oldest first."""
        hanging: dict[int, list[int]] = {}
        for member, anchor in anchors.items():
            hanging.setdefault(anchor, []).append(member)

        def partners(sql: str, member: int) -> list[tuple[int, int]]:
            return [row for row in self._store.rows(sql, member) if row[0] in anchors]

        group, waiting = {start}, [start]
        while waiting:
            member = waiting.pop()
            older = partners(_OLDER, member)
            linked = {
                other for other, status in older + partners(_YOUNGER, member)
                if status != ClosureStatus.REJECTED
            }
            # Only the later keyframe joined because of a closure; the other was there.
            if not older:
                linked.add(anchors[member])
            linked.update(
                other for other in hanging.get(member, ())
                if other not in group and not partners(_OLDER, other)
            )
            waiting += linked - group
            group |= linked
        return sorted(group)

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
