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

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.pgm', '.ppm')
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
    import cv2
    import numpy as np

    from netvlad_ros.config import validate
    from netvlad_ros.descriptor import load_descriptor

    config = DescriptorConfig(
        model=args.model, device=args.device, runtime=args.runtime, precision=args.precision
    )
    validate(config, 'descriptor.')
    paths = _image_paths(args.images)
    descriptor = load_descriptor(config)
    descriptors = np.empty((len(paths), descriptor.dim), dtype=np.float32)
    start = time.perf_counter()
    starts = range(0, len(paths), _BATCH)
    for first in progress(starts, len(starts), 'batches', 'describe'):
        images = []
        for path in paths[first : first + _BATCH]:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise InputError(f'{str(path)!r} is no image that OpenCV reads')
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
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


def _image_paths(given: list[Path]) -> list[Path]:
    """Return the files and the images in the folders, sorted within each folder.

    :raises InputError: one does not exist, or there is no image at all.
    """
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            paths += sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            paths.append(path)
        else:
            raise InputError(f'{str(path)!r} does not exist')
    if not paths:
        raise InputError(f'no images ({", ".join(SUFFIXES)}) in {", ".join(map(str, given))}')
    return paths
