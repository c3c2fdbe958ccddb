# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A sequence of six small images, and a descriptor that runs over it in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np

from netvlad_ros.config import DetectorConfig, from_dict
from netvlad_ros.descriptor import Descriptor
from netvlad_ros.evaluation.evaluation import Evaluation
from netvlad_ros.evaluation.runner import evaluate_source
from netvlad_ros.evaluation.sources import Source

S = 1_000_000_000
FRAMES = 'image,stamp_s\n' + ''.join(f'{i}.png,{30 * i}\n' for i in range(6))
REVISITS = 'query_index,match_indices,ignore_indices\n3,0,\n5,1 3,\n'


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC)


class MeanColour:
    """A descriptor for runs whose figures do not matter."""

    model_id, dim, recommended_min_similarity = 'mean@0', 4, None

    def compute(self, images: list[np.ndarray]) -> np.ndarray:
        """Return (N, 4) unit rows."""
        rows = np.stack([np.append(image.mean((0, 1)), 1.0) for image in images])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def run_over(source: Source) -> Evaluation:
    """Run the detector over every frame of a source, without geometry."""
    config = from_dict(DetectorConfig, {'verification': {'enabled': False}})
    descriptor = cast(Descriptor, MeanColour())
    return evaluate_source(source, descriptor, config, {'keyframes': 'every_frame'})


def pairs(count: int) -> tuple[np.ndarray, ...]:
    """Return the indices of every query and match."""
    return np.ix_(range(count), range(count))


def sequence_of(folder: Path, frames: str, **files: str) -> Path:
    """Write a sequence of the images 0.png to 5.png, where 2.png is damaged."""
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f'{index}.png'), picture(index))
    (folder / '2.png').write_bytes(b'no image')
    (folder / 'frames.csv').write_text(frames, encoding='utf-8')
    for name, text in files.items():
        (folder / name.replace('_', '.')).write_text(text, encoding='utf-8')
    return folder
