# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Weakly supervised training on tuples mined from a cache of descriptors (the paper's procedure).

The cache is two float16 memory maps, refreshed in one batched pass after every ``cache_queries``
queries; that number doubles when the learning rate halves. A checkpoint is written before each
refresh, and every random choice is seeded by (seed, epoch, query), so a run that was killed
continues to the result of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import logging
import math
from pathlib import Path
import time
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from netvlad_ros.config import validate
from netvlad_ros.errors import InputError
from netvlad_ros.training.checkpoint import append_log, load_checkpoint, save_checkpoint
from netvlad_ros.training.distributed import Workers
from netvlad_ros.training.features import describe_rows, feature_map, forward_for
from netvlad_ros.training.images import ImageSource, Progress, no_progress
from netvlad_ros.training.mining import Miner, Tuple
from netvlad_ros.training.places import IntArray, PlaceDataset
from netvlad_ros.training.recall import recall_at
from netvlad_ros.training.settings import TripletConfig
from netvlad_ros.training.tensorboard_log import TensorBoardLog
from netvlad_ros.training.triplet_loss import divisor, tuple_losses

_log = logging.getLogger(__name__)

# The authors choose the best epoch by the first of these, and among equal ones by the others
# (getBestEpoch.m).
CHOOSE_BY = (5, 1, 10)


@dataclass(frozen=True)
class TripletData:
    """A dataset with its images at the network's input size."""

    dataset: PlaceDataset
    database: ImageSource
    queries: ImageSource

    def __post_init__(self) -> None:
        for source, images in (
            (self.database, self.dataset.database), (self.queries, self.dataset.queries),
        ):  # fmt: skip
            if len(source) != len(images):
                raise InputError(
                    f'{self.dataset.name}: {len(source)} decoded images for {len(images)} rows: '
                    'list and images do not belong together'
                )


class TripletTrainer:
    """Trains a network; ``run`` may be killed and continued.

    :param network: (N, H, W, 3) uint8 to (N, dim) unit rows, with an attribute ``dim``;
        parameters that must not change have ``requires_grad`` off. It stays in eval mode.
    :param val: judged after every epoch, on at most ``val_queries`` sampled queries.
    :param folder: checkpoints, ``log.jsonl``, TensorBoard's event files and the cache.
    :param provenance: plain values kept in every checkpoint; a run that continues has the same.
    :param workers: this process among those that ``torchrun`` started.
    """

    val_queries = 1000

    def __init__(
        self,
        network: nn.Module,
        train: TripletData,
        val: Optional[TripletData],
        config: TripletConfig,
        folder: Path,
        provenance: Optional[dict[str, Any]] = None,
        workers: Optional[Workers] = None,
    ) -> None:
        validate(config, 'train.')
        self.network, self.train, self.val = network.eval(), train, val
        self.config, self.folder = config, folder
        self.provenance = provenance or {}
        self.workers = workers or Workers()
        self.device = next(network.parameters()).device
        self.miner = Miner(train.dataset, config)
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == 'sgd':
            self.optimiser = torch.optim.SGD(
                parameters, config.lr, config.momentum, weight_decay=config.weight_decay
            )
        else:
            self.optimiser = torch.optim.Adam(
                parameters, config.lr, weight_decay=config.weight_decay
            )
        self.epoch, self.position = 0, 0
        self.best: tuple[float, ...] = (-1.0,)
        self.best_epoch = -1
        self.losses: list[float] = []
        self.board = TensorBoardLog(folder, self.workers.is_first)

    def run(self, resume: bool = False, progress: Progress = no_progress) -> list[float]:
        """Train to the end and return the loss of every batch, those before a resume included."""
        if resume and self._last.is_file():
            self._resume()
        while self.epoch < self.config.epochs and not self._is_patience_over():
            self._one_epoch(progress)
        self.board.close()
        return self.losses

    def cache_interval(self, epoch: int) -> int:
        """Return the queries between two refreshes in an epoch."""
        doubled = self._halvings(epoch) if self.config.cache_doubles else 0
        return int(self.config.cache_queries * 2**doubled)

    def epoch_queries(self, epoch: int) -> IntArray:
        """Return the trainable queries of an epoch in their order."""
        rng = np.random.default_rng([self.config.seed, 1, epoch])
        order = rng.permutation(self.miner.trainable)
        return order[: self.config.queries] if self.config.queries else order

    def refresh_cache(
        self, progress: Progress = no_progress
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
        """Compute the descriptors of all queries and database images into memory maps."""
        made = []
        # Converted once for both: with a few thousand images that is a good part of the time.
        count = len(self.train.queries) + len(self.train.database)
        forward = forward_for(self.network, self.train.database, count // self.workers.count)
        for name, source in (('queries', self.train.queries), ('database', self.train.database)):
            path = self.folder / f'cache-{name}.npy'
            dim = int(getattr(self.network, 'dim'))  # noqa: B009 - any module with a dim
            if self.workers.is_first:
                feature_map(path, len(source), dim)
            self.workers.barrier()
            mapped = np.load(path, mmap_mode='r+')
            rows = self.workers.share(len(source))
            describe_rows(
                self.network, source, rows, mapped, progress, f'cache of {name}', forward=forward
            )
            mapped.flush()
            self.workers.barrier()
            made.append(mapped)
        return made[0], made[1]

    @property
    def _last(self) -> Path:
        return self.folder / 'last.safetensors'

    def _halvings(self, epoch: int) -> int:
        return epoch // self.config.halve_every if self.config.halve_every else 0

    def _is_patience_over(self) -> bool:
        waited = self.epoch - 1 - self.best_epoch
        return bool(self.config.patience) and self.best_epoch >= 0 and (
            waited >= self.config.patience
        )

    def _one_epoch(self, progress: Progress) -> None:
        rate = self.config.lr * 0.5 ** self._halvings(self.epoch)
        for group in self.optimiser.param_groups:
            group['lr'] = rate
        order, interval = self.epoch_queries(self.epoch), self.cache_interval(self.epoch)
        while self.position < len(order):
            self._save(self._last)
            part = order[self.position : self.position + interval]
            queries, database = self.refresh_cache(progress)
            starts = range(0, len(part), self.config.tuples)
            name = f'epoch {self.epoch + 1}'
            for start in progress(starts, total=len(starts), unit='batch', description=name):
                batch = part[start : start + self.config.tuples]
                self._one_batch(self._mined(batch, queries, database))
            self.position += len(part)
        self.epoch, self.position = self.epoch + 1, 0
        self._end_of_epoch(rate, progress)

    def _mined(
        self, batch: IntArray, queries: Any, database: Any
    ) -> list[Tuple]:
        mined = [
            self.miner.mine(
                int(query), queries, database,
                np.random.default_rng([self.config.seed, 2, self.epoch, int(query)]),
            )
            for query in batch
        ]  # fmt: skip
        return [one for one in mined if one is not None]

    def _one_batch(self, tuples: Sequence[Tuple]) -> None:
        """Take one optimiser step; a batch without any mined tuple is skipped.

        Neither is there a step where nothing is to divide by (no triplet has a loss after the new
        forward pass, divided by 'violating'): the authors then leave momentum and weights alone.
        """
        if not tuples:
            return
        start_s = time.perf_counter()
        self.optimiser.zero_grad(set_to_none=False)
        total, count, violating = 0.0, 0, 0
        for one in tuples[self.workers.rank :: self.workers.count]:
            losses = tuple_losses(*self._descriptors(one), self.config.margin, self.config.squared)
            # One tuple at a time, as the authors: memory for 12 images, not 48.
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total += float(losses.detach().sum())
            count += divisor(losses.detach(), self.config.divide_by)
            violating += divisor(losses.detach(), 'violating')
        parameters = [p for g in self.optimiser.param_groups for p in g['params']]
        total, divide_by = self.workers.sum(total), self.workers.sum(float(count))
        if divide_by:
            self.workers.sum_gradients(parameters)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= divide_by
            self.optimiser.step()
        loss = total / max(1.0, divide_by)
        if not math.isfinite(loss):
            raise InputError(f'the loss is {loss!r} in epoch {self.epoch + 1}: lower the rate')
        self.losses.append(loss)
        negatives = sum(len(one.negatives) for one in tuples)
        self.board.add(len(self.losses), {
            'train/loss': loss,
            'train/lr': float(self.optimiser.param_groups[0]['lr']),
            'train/violating_share': self.workers.sum(float(violating)) / negatives,
            'train/images_per_s': (negatives + 2 * len(tuples)) / (time.perf_counter() - start_s),
        })  # fmt: skip

    def _descriptors(self, one: Tuple) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query = self.train.queries.batch([one.query])
        others = self.train.database.batch([one.positive, *one.negatives.tolist()])
        pixels = torch.from_numpy(np.concatenate([query, others])).to(self.device)
        rows = self.network(pixels)
        return rows[0], rows[1], rows[2:]

    def _end_of_epoch(self, rate: float, progress: Progress) -> None:
        recalls = {} if self.val is None else self.validate(self.val, progress)
        chosen = tuple(recalls.get(n, 0.0) for n in CHOOSE_BY)
        entry = {
            'epoch': self.epoch, 'lr': rate, 'batches': len(self.losses),
            'loss': float(np.mean(self.losses[-100:])) if self.losses else None,
            'recall_at': {str(n): value for n, value in recalls.items()},
            'time_s': round(time.time(), 1),
        }  # fmt: skip
        _log.info('%s', entry)
        self.board.add(
            len(self.losses), {f'val/recall_at_{n}': value for n, value in recalls.items()}
        )
        is_best = chosen > self.best or self.val is None
        if is_best:
            self.best, self.best_epoch = chosen, self.epoch - 1
        if is_best:
            self._save(self.folder / 'best.safetensors')
        self._save(self._last)
        if self.workers.is_first:
            append_log(self.folder, entry)

    def validate(self, data: TripletData, progress: Progress = no_progress) -> dict[int, float]:
        """Return recall@1, 5, 10 of at most ``val_queries`` sampled queries."""
        rng = np.random.default_rng([self.config.seed, 3])
        chosen = np.sort(rng.permutation(len(data.queries))[: self.val_queries])
        dim = int(getattr(self.network, 'dim'))  # noqa: B009
        queries = np.empty((len(chosen), dim), np.float32)
        database = np.empty((len(data.database), dim), np.float32)
        describe_rows(self.network, data.queries, chosen, queries, progress, 'queries', True)
        everything = np.arange(len(database))
        describe_rows(self.network, data.database, everything, database, progress, 'database')
        right, stamps = data.dataset.right(), data.dataset.trivial_stamps()
        if stamps is not None:
            stamps = stamps[0][chosen], stamps[1]
        return recall_at(
            queries, database, [right[i] for i in chosen], (1, 5, 10), stamps=stamps
        ).values

    def _save(self, path: Path) -> None:
        if self.workers.is_first:
            state = {
                **self.provenance,
                'epoch': self.epoch, 'position': self.position, 'losses': self.losses,
                'best': self.best, 'best_epoch': self.best_epoch, 'memory': self.miner.state(),
            }  # fmt: skip
            save_checkpoint(path, self.network, self.optimiser, state)
        self.workers.barrier()

    def _resume(self) -> None:
        state = load_checkpoint(self._last, self.network, self.optimiser, self.provenance)
        self.epoch, self.position = int(state['epoch']), int(state['position'])
        self.losses = [float(x) for x in state['losses']]
        self.best, self.best_epoch = tuple(state['best']), int(state['best_epoch'])
        self.miner.restore(state['memory'])
        self.board.continue_from(len(self.losses) + 1)
