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
    """Describe the images in the order of their paths; damaged ones are left out and counted.

    :raises InputError: none can be read, or the output cannot be written.
    """
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
    rows, described, damaged = [], [], []
    start = time.perf_counter()
    starts = range(0, len(paths), _BATCH)
    for first in progress(starts, len(starts), 'batches', 'describe'):
        images = []
        for path in paths[first : first + _BATCH]:
            try:
                images.append(read_rgb(path))
                described.append(path)
            except InputError as error:
                damaged.append(str(error))
        if images:
            rows.append(descriptor.compute(images))
    seconds = time.perf_counter() - start
    if damaged:
        print(f'left out {len(damaged)} of {len(paths)} images, the first: {damaged[0]}')
    if not rows:
        raise InputError(f'none of {len(paths)} images can be read, the first: {damaged[0]}')
    arrays: dict[str, Any] = {
        'descriptors': np.concatenate(rows),
        'paths': np.array([str(path) for path in described]),
        'model_id': np.array(descriptor.model_id),
    }
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open('wb') as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise InputError(f'cannot write {str(args.output)!r}: {error}') from error
    print(
        f'{args.output}: {len(described)} descriptors of {descriptor.dim} values by '
        f'{descriptor.model_id}, {len(described) / seconds:.1f} images/s'
    )
    return {
        'output': str(args.output),
        'images': len(described),
        'left_out': len(damaged),
        'images_per_s': len(described) / seconds,
        **descriptor.describe(),
    }
