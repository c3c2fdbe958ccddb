# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recipe ``modern``: place-labelled batches, multi-similarity loss and miner, no feature cache.

Loss: Wang et al., CVPR 2019, with the settings that Ali-bey et al. (GSV-Cities, 2022) found for
place recognition. The whitening, started from PCA, may train with the rest: a projection that
has seen what must stay apart beats one that knows variances only. The layers that do not train
run once (``frozen.py``), so that a small model trains on a CPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
import logging
import math
from pathlib import Path
import time
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from netvlad_ros.config import validate
from netvlad_ros.descriptor.backbones import Backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.errors import ConfigError, InputError
from netvlad_ros.training.checkpoint import append_log, load_checkpoint, save_checkpoint
from netvlad_ros.training.frozen import FrozenViews, split_backbone
from netvlad_ros.training.images import Progress, no_progress
from netvlad_ros.training.relations import PlaceSampler, Relations
from netvlad_ros.training.self_retrieval import RetrievalScores, self_retrieval
from netvlad_ros.training.settings import ModernConfig
from netvlad_ros.training.tensorboard_log import TensorBoardLog
from netvlad_ros.types import Float32Array

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModernData:
    """Frozen outputs of the images of one dataset with their relations."""

    views: FrozenViews
    relations: Relations

    def __post_init__(self) -> None:
        if len(self.views) != len(self.relations.images):
            raise InputError(
                f'{len(self.views)} frozen outputs for {len(self.relations.images)} images: '
                'they are of another list, delete them'
            )


class ModernTrainer:
    """Trains the trainable part of a network; ``run`` may be stopped and continued anywhere.

    Every random choice of a step is seeded by (seed, step), so a continued run takes the same
    ones as an uninterrupted one.

    :param network: with pooling and whitening initialised; ``backbone.train_only`` was called.
    :param held_out: judged every ``check_every`` steps; the best by mean average precision wins.
    :param folder: checkpoints ``last.safetensors`` and ``best.safetensors``, ``log.jsonl`` and
        TensorBoard's event files.
    :param provenance: plain values kept in every checkpoint; a run that continues has the same.
    """

    def __init__(
        self,
        network: DescriptorNetwork,
        train: ModernData,
        held_out: Optional[ModernData],
        config: ModernConfig,
        folder: Path,
        provenance: Optional[dict[str, Any]] = None,
    ) -> None:
        validate(config, 'train.')
        if not isinstance(network.backbone, Backbone):
            raise ConfigError('RootSIFT has nothing to train')
        self.network, self.config, self.folder = network, config, folder
        self.train, self.held_out = train, held_out
        self.provenance = provenance or {}
        self.sampler = PlaceSampler(train.relations, config.places, config.per_place)
        if self.sampler.alone:
            _log.warning('%d images are left out: alone at their place', self.sampler.alone)
        _, self.tail = split_backbone(network.backbone)
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.AdamW(
            parameter_groups(network, self.tail, config), weight_decay=config.weight_decay
        )
        self._base_lrs = [float(group['lr']) for group in self.optimiser.param_groups]
        self.step = 0
        self.best = -1.0
        self.losses: list[float] = []
        self.board = TensorBoardLog(folder)
        self._violating_share = 0.0

    def run(self, resume: bool = False, progress: Progress = no_progress) -> list[float]:
        """Train to the end and return the loss of every step, those before a resume included."""
        if resume and self._last.is_file():
            self._resume()
        elif self.step == 0:
            self._check()
        steps = range(self.step, self.config.steps)
        for step in progress(steps, total=len(steps), unit='step', description='training'):
            self.losses.append(self._one_step(step))
            self.step = step + 1
            if self.step % self.config.check_every == 0 or self.step == self.config.steps:
                self._check()
        self.board.close()
        return self.losses

    @property
    def _last(self) -> Path:
        return self.folder / 'last.safetensors'

    def _resume(self) -> None:
        state = load_checkpoint(self._last, self.network, self.optimiser, self.provenance)
        self.step, self.best = int(state['step']), float(state['best'])
        self.losses = [float(x) for x in state['losses']]
        self._base_lrs = [float(x) for x in state['rates']]
        self.board.continue_from(self.step + 1)

    def _one_step(self, step: int) -> float:
        start_s = time.perf_counter()
        rng = np.random.default_rng([self.config.seed, step])
        for group, base in zip(self.optimiser.param_groups, self._base_lrs, strict=True):
            group['lr'] = base * self._schedule(step)
        indices = self.sampler.draw(rng)
        views = rng.integers(0, self.train.views.views, len(indices))
        x = self.train.views.batch(views.tolist(), indices.tolist()).to(self.device)
        same, different = self.train.relations.pairs(indices, indices)
        reduced = self.config.precision != 'fp32'
        kind = torch.float16 if self.config.precision == 'fp16' else torch.bfloat16
        with torch.autocast(self.device.type, dtype=kind, enabled=reduced):
            features = self.tail(x)
        descriptors = self.network.pool(features.float())
        labels = torch.arange(len(indices), device=self.device) // self.config.per_place
        loss = self._loss(
            descriptors, labels, torch.from_numpy(same), torch.from_numpy(different)
        )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f'the loss is {value!r} at step {step}: lower the learning rates')
        self.board.add(step + 1, {
            'train/loss': value,
            'train/lr': float(self.optimiser.param_groups[0]['lr']),
            'train/violating_share': self._violating_share,
            'train/images_per_s': len(indices) / (time.perf_counter() - start_s),
        })  # fmt: skip
        return value

    def _loss(self, x: Tensor, labels: Tensor, same: Tensor, different: Tensor) -> Tensor:
        """Return the multi-similarity loss of mined pairs that the positions agree with."""
        from pytorch_metric_learning.losses import MultiSimilarityLoss
        from pytorch_metric_learning.miners import MultiSimilarityMiner

        c = self.config
        miner = MultiSimilarityMiner(epsilon=c.epsilon)
        a1, p, a2, n = miner(x, labels)
        keep_p, keep_n = same[a1.cpu(), p.cpu()], different[a2.cpu(), n.cpu()]
        self._violating_share = int(keep_n.sum()) / max(1, int(different.sum()))
        pairs = (a1[keep_p], p[keep_p], a2[keep_n], n[keep_n])
        criterion = MultiSimilarityLoss(alpha=c.alpha, beta=c.beta, base=c.base)
        loss: Tensor = criterion(x, labels, pairs)
        return loss

    def _schedule(self, step: int) -> float:
        """Return the factor on all rates: a linear rise, then half a cosine to zero."""
        rise = min(1.0, (step + 1) / max(1, self.config.warm_up))
        return rise * 0.5 * (1 + math.cos(math.pi * step / self.config.steps))

    def _check(self) -> None:
        """Judge, log, and write checkpoints."""
        scores = None if self.held_out is None else self.judge(self.held_out)
        entry: dict[str, Any] = {'step': self.step, 'time_s': round(time.time(), 1)}
        if self.losses:
            entry['loss'] = float(np.mean(self.losses[-self.config.check_every :]))
        if scores is not None:
            entry.update(asdict(scores))
            self.board.add(self.step, {
                'val/recall_at_1': scores.recall_at_1,
                'val/average_precision': scores.average_precision,
            })  # fmt: skip
        _log.info('%s', entry)
        is_best = scores is None or scores.average_precision > self.best
        if scores is not None and is_best:
            self.best = scores.average_precision
        state = {
            **self.provenance,
            'step': self.step,
            'best': self.best,
            'losses': self.losses,
            'rates': self._base_lrs,
        }
        if is_best:
            save_checkpoint(
                self.folder / 'best.safetensors', self.network, self.optimiser, state
            )
        save_checkpoint(self._last, self.network, self.optimiser, state)
        append_log(self.folder, entry)

    def judge(self, data: ModernData) -> RetrievalScores:
        """Return how well the last view of each image finds the plain view of its neighbours.

        :raises InputError: no image has a neighbour: there is nothing to judge by.
        """
        scores = self_retrieval(
            self.describe(data.views, data.views.views - 1),
            self.describe(data.views, 0),
            data.relations,
        )
        if not scores.queries:
            raise InputError(
                f'none of the {len(data.views)} held-out images has another one within '
                f'{data.relations.positive_m:g} m of it: hold out more of them, give others with '
                "--val, or --val-split '' to train without"
            )
        return scores

    @torch.no_grad()
    def describe(self, views: FrozenViews, view: int, batch: int = 64) -> Float32Array:
        """Return (N, dim) descriptors of one view of all images."""
        rows = []
        for start in range(0, len(views), batch):
            indices = list(range(start, min(start + batch, len(views))))
            x = views.batch([view] * len(indices), indices).to(self.device)
            rows.append(self.network.pool(self.tail(x)).cpu().numpy())
        return np.concatenate(rows)


def parameter_groups(
    network: DescriptorNetwork, tail: nn.Module, config: ModernConfig
) -> list[dict[str, Any]]:
    """Return what trains, each with its rate; a rate of 0 leaves its part as it is."""
    groups: list[dict[str, Any]] = []

    def add(module: nn.Module, rate: float) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        if rate > 0 and parameters:
            groups.append({'params': parameters, 'lr': rate})

    add(tail, config.backbone_lr)
    if network.local_projection is not None:
        add(network.local_projection, config.lr)
    add(network.pooling, config.lr)
    if network.whitening is not None:
        size = float(network.whitening.weight.detach().abs().mean())
        add(network.whitening, config.whitening_lr * size)
    if not groups:
        raise ConfigError('nothing trains: all learning rates are 0')
    return groups


def load_best(folder: Path, network: DescriptorNetwork) -> None:
    """Put the weights of the best checkpoint into the network."""
    from netvlad_ros.training.checkpoint import load_weights

    load_weights(folder / 'best.safetensors', network)


@torch.no_grad()
def mixed(
    network: DescriptorNetwork, start: dict[str, Tensor], start_share: float
) -> DescriptorNetwork:
    """Return the network with each weight moved towards its start by ``start_share``."""
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(start[key].to(value.device), start_share)
    return network
