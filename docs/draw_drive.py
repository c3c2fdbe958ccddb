#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw the README's picture from a recording and the report that ``netvlad evaluate`` made of it.

``netvlad simulate drive && netvlad evaluate drive -o report``, then
``python docs/draw_drive.py drive report docs/drive.jpg``.
"""

from __future__ import annotations

import csv
from pathlib import Path
import sys

import matplotlib as mpl

mpl.use('Agg')
from matplotlib import pyplot as plt
import numpy as np

from netvlad_ros.evaluation.sources import open_source
from netvlad_ros.types import UInt8Array

# Of the queries, from the least similar match to the most: a hard one and the median.
SHOWN = (0.1, 0.5)


def chosen_closures(report: Path) -> list[dict[str, str]]:
    """Return the rows of ``closures.csv`` that are shown: the best verified one of two queries."""
    with (report / 'closures.csv').open() as file:
        verified = [row for row in csv.DictReader(file) if row['status'] == 'VERIFIED']
    best: dict[str, dict[str, str]] = {}
    for row in sorted(verified, key=lambda row: float(row['verification_score'])):
        best[row['query_frame']] = row
    rows = sorted(best.values(), key=lambda row: float(row['similarity']))
    return [rows[int(part * len(rows))] for part in SHOWN]


def images_at(recording: Path, stamps_ns: set[int]) -> dict[int, UInt8Array]:
    """Return the RGB images of these stamps."""
    frames = open_source(recording).frames()
    return {f.stamp_ns: f.image_rgb for f in frames if f.stamp_ns in stamps_ns}


def main() -> None:
    """Draw RECORDING REPORT OUTPUT of the command line."""
    recording, report, output = (Path(argument) for argument in sys.argv[1:])
    rows = chosen_closures(report)
    stamps = {int(row[key]) for row in rows for key in ('query_stamp_ns', 'match_stamp_ns')}
    images = images_at(recording, stamps)
    figure = plt.figure(figsize=(12.8, 5.2), dpi=100, layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.15))
    for row, axes in zip(rows, left.subplots(len(rows), 1), strict=True):
        seconds = (int(row['query_stamp_ns']) - int(row['match_stamp_ns'])) / 1e9
        axes.imshow(np.hstack([images[int(row[k])] for k in ('match_stamp_ns', 'query_stamp_ns')]))
        axes.set_title(
            f'seen again after {seconds:.0f} s: similarity {float(row["similarity"]):.2f}, '
            f'{row["num_inliers"]} inliers', fontsize=10,
        )
        axes.axis('off')
    axes = right.subplots()
    axes.imshow(plt.imread(report / 'plots' / 'trajectory.png'))
    axes.axis('off')
    figure.savefig(output, pil_kwargs={'quality': 85})


if __name__ == '__main__':
    main()
