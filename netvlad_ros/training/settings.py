# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the training recipes, apart from the trainers so that --help needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from netvlad_ros.config import setting
from netvlad_ros.training.augment import AugmentConfig


@dataclass(frozen=True)
class ModernConfig:
    """Settings of the recipe."""

    steps: int = setting(600, 'Training steps.', minimum=1, maximum=10_000_000)
    places: int = setting(32, 'Places in a batch.', minimum=2, maximum=10_000)
    per_place: int = setting(4, 'Images of a place in a batch.', minimum=2, maximum=1000)
    views: int = setting(
        5, 'Views of an image whose frozen outputs are kept: one plain, the others augmented.',
        minimum=1, maximum=1000,
    )
    lr: float = setting(
        1e-3, 'Learning rate of pooling and of the projection before it.',
        minimum=0.0, maximum=10.0,
    )
    backbone_lr: float = setting(
        1e-4, 'Learning rate of the trained part of the backbone.', minimum=0.0, maximum=10.0
    )
    whitening_lr: float = setting(
        1e-3, 'Learning rate of the whitening, relative to the mean size of its weights.',
        minimum=0.0, maximum=10.0,
    )
    weight_decay: float = setting(0.0, 'AdamW weight decay.', minimum=0.0, maximum=10.0)
    warm_up: int = setting(20, 'Steps over which the rates rise.', minimum=0, maximum=1_000_000)
    alpha: float = setting(1.0, 'Weight of positive pairs in the exponent.', minimum=0.01)
    beta: float = setting(50.0, 'Weight of negative pairs in the exponent.', minimum=0.01)
    base: float = setting(0.0, 'Similarity that separates the pairs.', minimum=-1.0, maximum=1.0)
    epsilon: float = setting(0.1, 'Margin of the miner.', minimum=0.0, maximum=2.0)
    start_share: float = setting(
        0.0, 'Share of the starting weights in the result (Wortsman et al., CVPR 2022: averaging '
        'with the start keeps what a small training set does not show).',
        minimum=0.0, maximum=1.0,
    )
    check_every: int = setting(
        100, 'Steps between checkpoints and validations.', minimum=1, maximum=1_000_000
    )
    seed: int = setting(0, 'Seed of everything random.', minimum=0)
    precision: str = setting(
        'fp32', 'Arithmetic of the trained layers.', choices=('fp32', 'bf16', 'fp16')
    )
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TripletConfig:
    """Settings of weakly supervised training; the defaults are the authors' for Pitts30k."""

    squared: bool = setting(True, 'Distances in the loss are squared.')
    margin: float = setting(0.1, 'Margin of the loss.', minimum=0.0, maximum=4.0)
    divide_by: str = setting(
        'violating',
        'The sum of a batch is divided by its triplets with a loss, or by all its triplets.',
        choices=('violating', 'all'),
    )
    only_violating: bool = setting(
        True, 'Take a negative only if it violates the margin by the cached descriptors.'
    )
    positive_beyond_m: float = setting(
        1.0, 'Positives lie farther than this from the query; -1 takes all.',
        unit='m', minimum=-1.0, maximum=1000.0,
    )
    sampled: int = setting(1000, 'Negatives sampled for a query.', minimum=1, maximum=10_000_000)
    remembered: str = setting(
        'nearest',
        'Candidates that are candidates of that query again next time: as many of the nearest as '
        'a tuple takes, whether they violate or not; the chosen ones, if any violates; or none.',
        choices=('nearest', 'violating', 'none'),
    )
    negatives: int = setting(10, 'Negatives of a tuple at most.', minimum=1, maximum=10_000)
    mining: str = setting(
        'hard', 'The hardest of the sampled negatives, or random ones, drawn without mining.',
        choices=('hard', 'random'),
    )
    tuples: int = setting(4, 'Tuples in a batch.', minimum=1, maximum=10_000)
    epochs: int = setting(30, 'Epochs.', minimum=1, maximum=100_000)
    queries: int = setting(
        0, 'Queries of an epoch, 0 takes all.', minimum=0, maximum=100_000_000
    )
    cache_queries: int = setting(
        1000, 'Queries between two refreshes of the cache.', minimum=1, maximum=100_000_000
    )
    cache_doubles: bool = setting(True, 'That number doubles whenever the rate halves.')
    optimiser: str = setting('sgd', 'Optimiser.', choices=('sgd', 'adam'))
    lr: float = setting(0.001, 'Learning rate.', minimum=0.0, maximum=10.0)
    momentum: float = setting(0.9, 'Momentum of SGD.', minimum=0.0, maximum=1.0)
    weight_decay: float = setting(0.001, 'Weight decay.', minimum=0.0, maximum=10.0)
    halve_every: int = setting(
        5, 'Epochs after which the rate halves, 0 never.', minimum=0, maximum=100_000
    )
    patience: int = setting(
        0, 'Epochs without a better validation after which training ends, 0 never.',
        minimum=0, maximum=100_000,
    )
    seed: int = setting(0, 'Seed of everything random.', minimum=0)


# Where the ports differ from the paper (Nanne/pytorch-NetVlad main.py, gmberton's
# deep-visual-geo-localization-benchmark parser.py); everything else is as above.
TRIPLET_RECIPES = {
    'relja': TripletConfig(),
    'nanne': TripletConfig(
        squared=False,
        margin=0.1**0.5,
        divide_by='all',
        remembered='violating',
        positive_beyond_m=-1.0,
        lr=0.0001,
        cache_doubles=False,
        patience=10,
    ),
    'benchmark': TripletConfig(
        squared=False,
        divide_by='all',
        only_violating=False,
        positive_beyond_m=-1.0,
        optimiser='adam',
        lr=0.00001,
        weight_decay=0.0,
        halve_every=0,
        queries=5000,
        cache_doubles=False,
        epochs=1000,
        patience=3,
    ),
}
