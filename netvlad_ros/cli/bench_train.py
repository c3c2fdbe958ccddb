# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cache refresh and training steps beside a straightforward port, on made-up images.

The port describes one image at a time, loops over the clusters and writes each row to HDF5, as the
PyTorch ports of NetVLAD do. Everything runs in this process, on the same images. The refresh is
measured as train does it, from images that it decoded once, and from the files, each round right
after the bare forward of the network on pixels in memory, so that other load on the machine
weighs on all. The made-up pictures are of 640x480.

  netvlad bench train --images photos/              the shipped model, on pictures of yours
  netvlad bench train --backbone vgg16 --count 48   random weights, NetVLAD of 64 clusters
  netvlad bench train --large-cache                 a cache as of Pitts250k (5.5 GB of disk)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
import tempfile
import time
from typing import TYPE_CHECKING, Any

from netvlad_ros.cli.numbers import positive_int

if TYPE_CHECKING:
    import numpy as np

from netvlad_ros.descriptor.network import DescriptorNetwork

LARGE_ROWS, LARGE_DIM = 84_000, 32_768

# Database images and queries of Pitts30k train: what one refresh of the cache describes.
PITTS30K = 17_416


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--model', default='default', help='Default: default')
    parser.add_argument(
        '--backbone', help='Instead of a model: this backbone with random weights and NetVLAD.'
    )
    parser.add_argument('--rounds', type=positive_int, default=3, help='Rounds. Default: 3')
    parser.add_argument(
        '--count', type=positive_int, default=256, help='Images of the cache. Default: 256'
    )
    parser.add_argument(
        '--images', type=Path, help='Folder of images. Default: JPEG files made up for the run'
    )
    parser.add_argument(
        '--tuples', type=positive_int, default=8, help='Tuples to train on. Default: 8'
    )
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
    import numpy as np
    import torch

    from netvlad_ros.image_files import image_paths
    from netvlad_ros.training.features import BATCH, describe_rows, feature_map
    from netvlad_ros.training.frozen import fast_forward
    from netvlad_ros.training.images import ImageFiles, ImageMap, at_one_size
    from netvlad_ros.training.triplet_loss import tuple_losses

    network = _network(args)
    paths = _made_up(folder, args.count) if args.images is None else image_paths([args.images])
    paths = paths[:: max(1, len(paths) // args.count)][: args.count]
    count = len(paths)
    images = ImageFiles(paths, at_one_size(network.policy))
    pixels = torch.from_numpy(images.batch(range(min(BATCH, count))))
    start = time.perf_counter()
    forward = fast_forward(network, pixels[:1])
    # Paid once for each refresh: it weighs on a few hundred images, not on ten thousand.
    conversion_s = time.perf_counter() - start
    cache = feature_map(folder / 'cache.npy', count, network.dim)
    decoded = ImageMap(images, folder / 'decoded')
    rows = np.arange(count)
    forward(pixels)
    seconds = np.zeros(3)
    works: list[Callable[[], object]] = [
        lambda: [forward(pixels) for _ in range(-(-count // BATCH))],
        lambda: describe_rows(network, decoded, rows, cache, forward=forward),
        lambda: describe_rows(network, images, rows, cache, forward=forward),
    ]
    for _ in range(args.rounds):
        for kind, work in enumerate(works):
            start = time.perf_counter()
            work()
            seconds[kind] += time.perf_counter() - start
    bare_count = args.rounds * len(pixels) * -(-count // BATCH)
    bare = bare_count / seconds[0]
    refresh, from_files = args.rounds * count / seconds[1:]
    decode = _rate(lambda: images.batch(range(count)), count, 1)
    few = range(min(count, 32))
    port = _rate(lambda: _port_cache(network, images, few, folder / 'cache.h5'), len(few), 1)
    network.requires_grad_(True)
    loading_s = 0.0
    start = time.perf_counter()
    for n in range(args.tuples):
        before = time.perf_counter()
        batch = torch.from_numpy(decoded.batch([(12 * n + k) % count for k in range(12)]))
        loading_s += time.perf_counter() - before
        rows = network(batch)
        tuple_losses(rows[0], rows[1], rows[2:], 0.1).sum().backward()  # type: ignore[no-untyped-call]
    training_s = time.perf_counter() - start
    return {
        'bare_forward_images_per_s': bare,
        'cache_refresh_images_per_s': refresh,
        'cache_refresh_of_bare_forward': refresh / bare,
        'cache_refresh_from_files_images_per_s': from_files,
        'cache_refresh_from_files_of_bare_forward': from_files / bare,
        'conversion_s_of_each_refresh': conversion_s,
        'conversion_share_at_pitts30k': conversion_s / (conversion_s + PITTS30K / refresh),
        'decoding_images_per_s': decode,
        'port_cache_images_per_s': port,
        'port_cache_file': 'HDF5' if _h5py() else 'none: h5py is missing, pip install h5py',
        'cache_refresh_of_port': refresh / port,
        'training_images_per_s': 12 * args.tuples / training_s,
        'training_share_of_loading': loading_s / training_s,
        'peak_memory_mb': _peak_mb(),
    }


def _made_up(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 640x480 with coarse random patterns."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    paths = [folder / f'{n}.jpg' for n in range(count)]
    for path in paths:
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
    return paths


def _rate(work: Any, count: int, repeats: int) -> float:
    """Return items per second; the first of several calls warms up."""
    if repeats > 1:
        work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return count * repeats / (time.perf_counter() - start)


def _network(args: argparse.Namespace) -> DescriptorNetwork:
    from netvlad_ros.descriptor import load_bundle
    from netvlad_ros.descriptor.backbones import make_backbone
    from netvlad_ros.descriptor.locate import find_model
    from netvlad_ros.descriptor.network import DescriptorNetwork
    from netvlad_ros.descriptor.poolings import make_pooling
    from netvlad_ros.descriptor.preprocess import InputPolicy

    if args.backbone is None:
        return load_bundle(find_model(args.model)).network.eval()
    backbone = make_backbone(args.backbone)
    pooling = make_pooling({'kind': 'netvlad'}, 64, backbone.channels)
    return DescriptorNetwork(InputPolicy(height=240, width=320), backbone, pooling).eval()


def _h5py() -> Any:
    """Return the module, None where it is not installed."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        return None
    return h5py


def _port_cache(network: DescriptorNetwork, images: Any, indices: range, path: Path) -> None:
    """Write the descriptors of some images one by one, as float32 rows of an HDF5 file."""
    h5py = _h5py()
    if h5py is None:
        for index in indices:
            _port_row(network, images, index)
        return
    with h5py.File(path, 'w') as file:
        rows = file.create_dataset('features', (len(indices), network.dim), dtype='float32')
        for index in indices:
            rows[index] = _port_row(network, images, index)[0]


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
        if network.local_projection is not None:
            features = network.local_projection(features)
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

    from netvlad_ros.training.array_file import let_go
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
        let_go(cache)
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
