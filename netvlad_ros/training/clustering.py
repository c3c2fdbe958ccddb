# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""k-means of local features, from which the NetVLAD layer starts (the paper's appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from netvlad_ros.config import setting
from netvlad_ros.descriptor.local_projection import LocalProjection
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.unit_length import unit
from netvlad_ros.errors import InputError
from netvlad_ros.training.frozen import device_of, fast_forward, is_convolutional
from netvlad_ros.training.images import ImageSource, Progress, by_size, no_progress
from netvlad_ros.types import Float32Array

_BATCH = 16


@dataclass(frozen=True)
class ClusterConfig:
    """How many local features are clustered, and how."""

    clusters: int = setting(64, 'Number of clusters K.', minimum=2, maximum=4096)
    descriptors: int = setting(
        50000, 'Local features to cluster.', minimum=2, maximum=100_000_000
    )
    per_image: int = setting(100, 'Local features of one image.', minimum=1, maximum=100_000)
    iterations: int = setting(100, 'k-means iterations.', minimum=1, maximum=10_000)
    seed: int = setting(0, 'Seed of the choice of images and features and of k-means.', minimum=0)


@torch.no_grad()
def sample_local_features(
    network: DescriptorNetwork,
    images: ImageSource,
    config: ClusterConfig,
    progress: Progress = no_progress,
) -> Float32Array:
    """Return (n, D) unit local features of randomly chosen images.

    Images are drawn without replacement, unlike the authors' release, whose loop takes the first
    500 of the list after drawing others (Relja/netvlad getClusters.m).

    :param images: training database images only.
    """
    rng = np.random.default_rng(config.seed)
    wanted = -(-config.descriptors // config.per_image)
    chosen = rng.permutation(len(images))[:wanted]
    device = device_of(network)
    batch = _BATCH if is_convolutional(network) else 1
    encoder = nn.Sequential(network.normalise, network.backbone)
    forward = fast_forward(encoder, torch.from_numpy(images.batch([0])).to(device))
    parts: list[Float32Array] = []
    starts = range(0, len(chosen), batch)
    for start in progress(starts, total=len(starts), unit='batch', description='features'):
        for _, pixels in by_size(images.batch(chosen[start : start + batch])):
            local = unit(forward(torch.from_numpy(pixels).to(device)).flatten(2), dim=1)
            for one in local.transpose(1, 2).cpu().numpy():  # (L, D)
                parts.append(one[rng.permutation(len(one))[: config.per_image]])
    samples = np.concatenate(parts).astype(np.float32)
    return samples[: config.descriptors]


def kmeans(samples: Float32Array, config: ClusterConfig) -> Float32Array:
    """Return (K, D) centres of all samples by faiss, the same for the same seed.

    :raises InputError: there are fewer samples than clusters, or some are not finite.
    """
    import faiss

    if len(samples) < config.clusters:
        raise InputError(
            f'{config.clusters} clusters need as many local features, got {len(samples)}: give '
            'more images or fewer clusters'
        )
    if not np.isfinite(samples).all():
        raise InputError('local features are not finite: the weights are damaged')
    # faiss would otherwise use only 256 samples a centre, 16,384 of 50,000.
    clustering = faiss.Kmeans(
        samples.shape[1],
        config.clusters,
        niter=config.iterations,
        seed=config.seed,
        max_points_per_centroid=len(samples),
        min_points_per_centroid=1,
    )
    clustering.train(np.ascontiguousarray(samples))
    return np.asarray(clustering.centroids, dtype=np.float32)


def init_pooling(
    network: DescriptorNetwork,
    datasets: Sequence[ImageSource],
    config: ClusterConfig,
    progress: Progress = no_progress,
) -> float:
    """Cluster and start the network's NetVLAD or VLAD layer from it.

    A projection of the local features, where the network has one, is started before.

    :param datasets: each gives as many local features.
    :returns: alpha, the sharpness of the assignment.
    :raises InputError: the pooling has no clusters.
    """
    init = getattr(network.pooling, 'init_from_clusters', None)
    if init is None:
        raise InputError(f'pooling {network.pooling.kind!r} has no clusters')
    each = replace(config, descriptors=-(-config.descriptors // len(datasets)))
    samples = np.concatenate([
        sample_local_features(network, images, each, progress) for images in datasets
    ])
    if network.local_projection is not None:
        network.local_projection.init_from_samples(torch.from_numpy(samples))
        samples = _projected(network.local_projection, samples)
    centres = kmeans(samples, config)
    return float(init(torch.from_numpy(centres), torch.from_numpy(samples)))


@torch.no_grad()
def _projected(projection: LocalProjection, samples: Float32Array) -> Float32Array:
    """Return (n, P) unit rows."""
    maps = projection(torch.from_numpy(samples.T[None, :, :, None]).to(projection.weight.device))
    rows = unit(maps[0, :, :, 0].T, dim=1)
    return np.ascontiguousarray(rows.cpu().numpy())
