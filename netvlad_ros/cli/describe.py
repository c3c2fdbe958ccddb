# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compute the descriptors of images and write them to a NumPy file.

The file has `descriptors` (N, D) float32, `paths` (N,) and `model_id`.

  netvlad describe photos/ --output photos.npz
  netvlad describe a.jpg b.jpg --model vgg16_sfrs --device cuda --output ab.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
import time
from typing import Any

from netvlad_ros.cli.progress import progress
from netvlad_ros.config import DescriptorConfig
from netvlad_ros.errors import InputError

_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    default = DescriptorConfig()
    parser.add_argument(
        'images', type=Path, nargs='+', help='Image files, or folders of them (recursively).'
    )
    parser.add_argument('--output', type=Path, required=True, help='The .npz file.')
    parser.add_argument('--model', default=default.model, help=f'Default: {default.model}')
    parser.add_argument('--device', default=default.device, help=f'Default: {default.device}')
    parser.add_argument('--runtime', default=default.runtime, help=f'Default: {default.runtime}')
    parser.add_argument(
        '--precision', default=default.precision, help=f'Default: {default.precision}'
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Describe the images in the order of their paths."""
    import numpy as np

    from netvlad_ros.config import validate
    from netvlad_ros.descriptor import load_descriptor
    from netvlad_ros.image_files import image_paths, read_rgb

    config = DescriptorConfig(
        model=args.model, device=args.device, runtime=args.runtime, precision=args.precision
    )
    validate(config, 'descriptor.')
    paths = image_paths(args.images)
    descriptor = load_descriptor(config)
    descriptors = np.empty((len(paths), descriptor.dim), dtype=np.float32)
    start = time.perf_counter()
    starts = range(0, len(paths), _BATCH)
    for first in progress(starts, len(starts), 'batches', 'describe'):
        images = [read_rgb(path) for path in paths[first : first + _BATCH]]
        descriptors[first : first + len(images)] = descriptor.compute(images)
    seconds = time.perf_counter() - start
    arrays: dict[str, Any] = {
        'descriptors': descriptors,
        'paths': np.array([str(path) for path in paths]),
        'model_id': np.array(descriptor.model_id),
    }
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open('wb') as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise InputError(f'cannot write {str(args.output)!r}: {error}') from error
    print(
        f'{args.output}: {len(paths)} descriptors of {descriptor.dim} values by '
        f'{descriptor.model_id}, {len(paths) / seconds:.1f} images/s'
    )
    return {
        'output': str(args.output),
        'images': len(paths),
        'images_per_s': len(paths) / seconds,
        **descriptor.describe(),
    }
