# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draws on walls in metres: rectangles, invented names, posters."""

from __future__ import annotations

from dataclasses import dataclass
import math

import cv2
import numpy as np

from netvlad_ros.simulation.materials import pick
from netvlad_ros.simulation.mesh import Rgb
from netvlad_ros.types import UInt8Array

PX_PER_M = 60

TRIMS: tuple[Rgb, ...] = ((236, 232, 224), (70, 64, 60), (118, 84, 60), (60, 84, 74),
                          (84, 92, 110))
DOORS: tuple[Rgb, ...] = ((110, 40, 36), (40, 70, 104), (46, 84, 60), (120, 84, 52), (58, 54, 54),
                          (196, 150, 60), (150, 150, 148))
SIGNS: tuple[Rgb, ...] = ((178, 38, 40), (28, 84, 150), (34, 110, 70), (230, 180, 40),
                          (60, 44, 80), (240, 236, 226), (34, 34, 38), (214, 110, 40),
                          (20, 130, 140))
FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX,
         cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
SYLLABLES = ('ba', 'ko', 'mi', 'ra', 'ten', 'lo', 'su', 'ver', 'na', 'di', 'pol', 'gar', 'he',
             'wi', 'zo', 'ul', 'or', 'fen', 'ti', 'lau')


@dataclass(frozen=True)
class Relief:
    """A box in front of the wall: a sill, a balcony or an awning.

    :param box_m: x0, z0, x1, z1 on the front, from its lower left corner.
    """

    box_m: tuple[float, float, float, float]
    depth_m: float
    rgb: Rgb


def word(rng: np.random.Generator) -> str:
    """Return an invented name such as a shop would have."""
    count = int(rng.integers(2, 4))
    return ''.join(str(rng.choice(SYLLABLES)) for _ in range(count)).upper()


class Painter:
    """Draws on a wall in metres from its lower left corner."""

    def __init__(self, image: UInt8Array, rng: np.random.Generator) -> None:
        self.image, self.rng = image, rng
        self.reliefs: list[Relief] = []

    def px(self, x_m: float, z_m: float) -> tuple[int, int]:
        """Return the pixel of a point of the wall."""
        return round(x_m * PX_PER_M), self.image.shape[0] - round(z_m * PX_PER_M)

    def rect(
        self, x0: float, z0: float, x1: float, z1: float, rgb: Rgb, line_px: int = -1
    ) -> None:
        """Draw a rectangle, filled unless a line width is given."""
        cv2.rectangle(self.image, self.px(x0, z0), self.px(x1, z1), rgb, line_px)

    def text(self, label: str, x0: float, z0: float, x1: float, z1: float, rgb: Rgb) -> None:
        """Write a label that fills the rectangle's width or height."""
        font = FONTS[int(self.rng.integers(len(FONTS)))]
        (w, h), _ = cv2.getTextSize(label, font, 1.0, 2)
        scale = min((x1 - x0) * PX_PER_M / w, (z1 - z0) * PX_PER_M / h) * 0.8
        width, height = w * scale / PX_PER_M, h * scale / PX_PER_M
        origin = self.px((x0 + x1 - width) / 2, (z0 + z1 - height) / 2)
        cv2.putText(self.image, label, origin, font, scale, rgb, max(1, round(2 * scale)),
                    cv2.LINE_AA)

    def relief(self, x0: float, z0: float, x1: float, z1: float, depth: float, rgb: Rgb) -> None:
        """Put a box in front of the wall."""
        self.reliefs.append(Relief((x0, z0, x1, z1), depth, rgb))


def poster(p: Painter, x0: float, z0: float, x1: float, z1: float) -> None:
    """Draw a poster: a coloured sheet with a shape and lines of text."""
    rng, back, front = p.rng, pick(p.rng, SIGNS), pick(p.rng, SIGNS)
    p.rect(x0, z0, x1, z1, back)
    radius = round(min(x1 - x0, z1 - z0) * PX_PER_M * rng.uniform(0.2, 0.4))
    centre = p.px((x0 + x1) / 2, z0 + 0.6 * (z1 - z0))
    sides = int(rng.integers(3, 9))
    turn = rng.uniform(0, 2 * math.pi)
    angles = turn + np.arange(sides) * 2 * math.pi / sides
    shape = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre
    cv2.fillPoly(p.image, [shape.astype(np.int32)], front, cv2.LINE_AA)
    ink = (250, 250, 246) if sum(back) < 380 else (24, 24, 28)
    p.text(word(rng), x0, z0 + 0.82 * (z1 - z0), x1, z1, ink)
    p.text(word(rng) + str(int(rng.integers(10, 99))), x0, z0, x1, z0 + 0.2 * (z1 - z0), ink)
