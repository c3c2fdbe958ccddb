# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cache refresh and training steps beside a straightforward port, on made-up images.

The port describes one image at a time and loops over the clusters, as the PyTorch ports of NetVLAD
do. Both run in this process, one after the other, on the same images.

  netvlad bench train                               the shipped model
  netvlad bench train --model vgg16_sfrs --count 64
  netvlad bench train --large-cache                 a cache as of Pitts250k (5.5 GB of disk)
"""

from __future__ import annotations

import argparse
from pathlib import Path
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from netvlad_ros.descriptor.network import DescriptorNetwork

LARGE_ROWS, LARGE_DIM = 84_000, 32_768


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--model', default='default', help='Default: default')
    parser.add_argument('--count', type=int, default=256, help='Images of the cache. Default: 256')
    parser.add_argument('--tuples', type=int, default=8, help='Tuples to train on. Default: 8')
    parser.add_argument(
        '--large-cache', action='store_true',
        help=f'Only write and mine a cache of {LARGE_ROWS} x {LARGE_DIM} and report the memory.',
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        result = _large(Path(folder)) if args.large_cache else _small(args, Path(folder))
    for name, value in result.items():
        print(f'{name}: {value:.4g}' if isinstance(value, float) else f'{name}: {value}')
    return result


def _small(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    import cv2
    import numpy as np
    import torch

    from netvlad_ros.descriptor import load_bundle
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.training.features import BATCH, describe_rows, feature_map
    from netvlad_ros.training.frozen import fast_forward
    from netvlad_ros.training.images import ImageFiles
    from netvlad_ros.training.triplet_loss import tuple_losses

    network = load_bundle(find_model(args.model)).network.eval()
    rng = np.random.default_rng(0)
    paths = [folder / f'{n}.jpg' for n in range(args.count)]
    for path in paths:
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
    images = ImageFiles(paths, network.policy)
    pixels = torch.from_numpy(images.batch(range(min(BATCH, args.count))))
    start = time.perf_counter()
    forward = fast_forward(network, pixels[:1])
    # Paid once for each refresh: it weighs on a few hundred images, not on ten thousand.
    conversion_s = time.perf_counter() - start
    bare = _rate(lambda: forward(pixels), len(pixels), max(2, args.count // BATCH))
    cache = feature_map(folder / 'cache.npy', args.count, network.dim)
    refresh = _rate(
        lambda: describe_rows(network, images, np.arange(args.count), cache), args.count, 1
    )
    decode = _rate(lambda: images.batch(range(args.count)), args.count, 1)
    few = range(min(args.count, 32))
    port = _rate(lambda: [_port_row(network, images, i) for i in few], len(few), 1)
    network.requires_grad_(True)
    loading_s = 0.0
    start = time.perf_counter()
    for n in range(args.tuples):
        before = time.perf_counter()
        batch = torch.from_numpy(images.batch([(12 * n + k) % args.count for k in range(12)]))
        loading_s += time.perf_counter() - before
        rows = network(batch)
        tuple_losses(rows[0], rows[1], rows[2:], 0.1).sum().backward()  # type: ignore[no-untyped-call]
    training_s = time.perf_counter() - start
    return {
        'bare_forward_images_per_s': bare,
        'cache_refresh_images_per_s': refresh,
        'cache_refresh_of_bare_forward': refresh / bare,
        'conversion_s_of_each_refresh': conversion_s,
        'decoding_images_per_s': decode,
        'port_cache_images_per_s': port,
        'cache_refresh_of_port': refresh / port,
        'training_images_per_s': 12 * args.tuples / training_s,
        'training_share_of_loading': loading_s / training_s,
        'peak_memory_mb': _peak_mb(),
    }


def _rate(work: Any, count: int, repeats: int) -> float:
    """Return items per second; the first of several calls warms up."""
    if repeats > 1:
        work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return count * repeats / (time.perf_counter() - start)


def _port_row(network: DescriptorNetwork, images: Any, index: int) -> np.ndarray[Any, Any]:
    """Describe one image with a loop over the clusters."""
    import torch

    from netvlad_ros.descriptor.netvlad import NetVLAD
    from netvlad_ros.descriptor.unit_length import unit

    with torch.no_grad():
        pixels = torch.from_numpy(images.batch([index]))
        features = network.features(network.normalise(pixels))
        pooling = network.pooling
        if not isinstance(pooling, NetVLAD):
            return network.pool(features).numpy()
        x = unit(features.flatten(2), dim=1)
        weights = (pooling.assignment @ x).softmax(dim=1)
        rows = [
            ((x - pooling.centres[k][None, :, None]) * weights[:, k : k + 1]).sum(dim=2)
            for k in range(pooling.clusters)
        ]
        row = unit(unit(torch.stack(rows, dim=1), dim=2).flatten(1), dim=1)
        return (row if network.whitening is None else network.whitening(row)).numpy()


def _large(folder: Path) -> dict[str, object]:
    """Write a cache as large as that of Pitts250k and mine a few queries from it."""
    import numpy as np

    from netvlad_ros.training.features import feature_map
    from netvlad_ros.training.mining import Miner
    from netvlad_ros.training.places import PlaceDataset, PlaceImages
    from netvlad_ros.training.settings import TripletConfig

    start_mb = _peak_mb()
    rng = np.random.default_rng(0)
    cache = feature_map(folder / 'cache.npy', LARGE_ROWS, LARGE_DIM)
    block = rng.standard_normal((500, LARGE_DIM), dtype=np.float32).astype(np.float16)
    start = time.perf_counter()
    for first in range(0, LARGE_ROWS, len(block)):
        cache[first : first + len(block)] = block
    cache.flush()
    written_s = time.perf_counter() - start
    xy_m = np.stack([np.arange(LARGE_ROWS) * 0.5, np.zeros(LARGE_ROWS)], axis=1)
    database = PlaceImages(tuple(Path(f'{n}') for n in range(LARGE_ROWS)), xy_m)
    miner = Miner(PlaceDataset('large', database, database.take(np.arange(4))), TripletConfig())
    start = time.perf_counter()
    for query in range(4):
        miner.mine(query, np.asarray(cache[:4]), cache, rng)
    mined_s = (time.perf_counter() - start) / 4
    return {
        'rows': LARGE_ROWS, 'dim': LARGE_DIM, 'written_s': written_s,
        'mining_s_per_query': mined_s, 'peak_memory_mb': _peak_mb(),
        'peak_anonymous_memory_mb': _anonymous_mb(), 'memory_before_mb': start_mb,
    }  # fmt: skip


def _peak_mb() -> float:
    """Return the largest resident memory so far, mapped files included."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _anonymous_mb() -> float:
    """Return the resident memory that is not backed by a file and cannot be given back."""
    for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines():
        if line.startswith('RssAnon'):
            return float(line.split()[1]) / 1024
    return float('nan')
