# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tuples of weakly supervised training: the best positive and hard negatives of each query.

Mining runs in the main process on cached descriptors. In ports that mine in data-loading workers
the memory of hard negatives is lost with each worker's copy (Nanne/pytorch-NetVlad).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from netvlad_ros.errors import InputError
from netvlad_ros.training.array_file import let_go
from netvlad_ros.training.places import LOOK_ALIKE_FROM_M, IntArray, PlaceDataset
from netvlad_ros.training.settings import TripletConfig

Descriptors = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Tuple:
    """One query with database indices of its positive and its negatives, hardest first."""

    query: int
    positive: int
    negatives: IntArray


class Miner:
    """Chooses the tuple of a query from cached descriptors and remembers its negatives.

    :param dataset: supplies potential positives and, by distance, negatives.
    :raises InputError: no query has both.
    """

    def __init__(self, dataset: PlaceDataset, config: TripletConfig) -> None:
        self.config = config
        self.count = len(dataset.database)
        self.positives = dataset.positives(config.positive_beyond_m)
        self.near = dataset.within(dataset.negative_radius_m)
        self._queries, self._database = dataset.queries, dataset.database
        self.trainable = self._trainable(dataset)
        self.memory: dict[int, IntArray] = {}

    def _trainable(self, dataset: PlaceDataset) -> IntArray:
        with_positive = np.array([len(row) > 0 for row in self.positives])
        if not with_positive.any():
            raise InputError(f'{dataset.name}: no query has a positive, nothing to train on')
        with_both = with_positive & [len(self._pool(i)) > 0 for i in range(len(self.near))]
        if not with_both.any():
            raise InputError(
                f'{dataset.name}: no query with a positive has a negative, all database images '
                f'lie within {dataset.negative_radius_m:g} m of it or may show its place: add '
                'images of other places'
            )
        return np.flatnonzero(with_both)

    def mine(
        self,
        query: int,
        queries: Descriptors,
        database: Descriptors,
        rng: np.random.Generator,
    ) -> Optional[Tuple]:
        """Return the query's tuple; None if it has no positive or no negative violates.

        :param queries: (M, D) cached descriptors of all queries, of any float type.
        :param database: (N, D) likewise of the database.
        """
        positives = self.positives[query]
        if not len(positives):
            return None
        own = queries[query].astype(np.float32)
        to_positive = self._distance(own, database[positives])
        best = int(to_positive.argmin())
        candidates = self._candidates(query, rng)
        distance = self._distance(own, database[candidates])
        let_go(database)
        order = np.argsort(distance, kind='stable')
        nearest = candidates[order[: self.config.negatives]]
        if self.config.only_violating:
            order = order[distance[order] < to_positive[best] + self.config.margin]
        chosen = candidates[order[: self.config.negatives]]
        remembered = chosen if self.config.remembered == 'violating' else nearest
        if self.config.remembered != 'none' and self.config.mining == 'hard' and len(remembered):
            self.memory[query] = remembered
        return Tuple(query, int(positives[best]), chosen) if len(chosen) else None

    def _candidates(self, query: int, rng: np.random.Generator) -> IntArray:
        """Return sampled negatives and then the remembered ones that were not sampled.

        Random negatives are drawn without a look at the cache, as many as a tuple takes.
        """
        count = self.config.sampled if self.config.mining == 'hard' else self.config.negatives
        sampled = rng.permutation(self._pool(query))[:count]
        remembered = self.memory.get(query)
        if remembered is None:
            return sampled
        return np.concatenate([sampled, remembered[~np.isin(remembered, sampled)]])

    def _pool(self, query: int) -> IntArray:
        """Return the database images that surely show another place."""
        allowed = np.ones(self.count, dtype=bool)
        allowed[self.near[query]] = False
        ours, theirs = self._queries.look_alike, self._database.look_alike
        if ours is not None and theirs is not None and ours[query] >= 0:
            away_m = np.linalg.norm(self._database.xy_m - self._queries.xy_m[query], axis=1)
            allowed &= (theirs != ours[query]) | (away_m <= LOOK_ALIKE_FROM_M)
        return np.flatnonzero(allowed)

    def _distance(self, own: Descriptors, others: Descriptors) -> npt.NDArray[np.float32]:
        """Return (n,) distances as the loss has them."""
        squared = np.square(others.astype(np.float32) - own).sum(axis=1)
        return np.asarray(squared if self.config.squared else np.sqrt(squared))

    def state(self) -> dict[str, list[int]]:
        """Return the memory as plain values for a checkpoint."""
        return {str(query): chosen.tolist() for query, chosen in self.memory.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the memory from a checkpoint."""
        self.memory = {
            int(query): np.array(chosen, dtype=np.int64) for query, chosen in state.items()
        }
