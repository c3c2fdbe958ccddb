# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things that stand in a street: trees, cars, lamps, bins, benches, planters, poster columns."""

from __future__ import annotations

import math

import numpy as np

from netvlad_ros.simulation.materials import pick
from netvlad_ros.simulation.mesh import MeshBuilder, Rgb, UvRect, Vector
from netvlad_ros.simulation.painter import DOORS, PX_PER_M, SIGNS, Painter, poster, word
from netvlad_ros.types import UInt8Array

CARS: tuple[Rgb, ...] = ((170, 30, 34), (34, 60, 120), (210, 210, 206), (60, 64, 68), (30, 30, 32),
                         (150, 156, 160), (220, 180, 50), (50, 110, 90))
ATLAS_CELLS = 4


def poster_atlas(rng: np.random.Generator) -> UInt8Array:
    """Return a square texture of ``ATLAS_CELLS``^2 posters and name plates."""
    side_m = 2.4
    size = round(ATLAS_CELLS * side_m * PX_PER_M)
    p = Painter(np.full((size, size, 3), 200, np.uint8), rng)
    for row in range(ATLAS_CELLS):
        for column in range(ATLAS_CELLS):
            x, z = column * side_m, row * side_m
            if row == 0:
                p.rect(x, z, x + side_m, z + side_m, pick(rng, SIGNS))
                for k in range(3):
                    low, high = z + 0.8 * k, z + 0.8 * (k + 1)
                    p.text(word(rng), x, low, x + side_m, high, (250, 250, 246))
                continue
            for k in range(3):
                low = z + 0.8 * k
                for m in range(4):
                    poster(p, x + 0.6 * m, low, x + 0.6 * (m + 1) - 0.04, low + 0.76)
    return p.image


def atlas_cell(rng: np.random.Generator, row: int) -> UvRect:
    """Return the uv rectangle of one cell of a row of the atlas."""
    column, step = int(rng.integers(ATLAS_CELLS)), 1.0 / ATLAS_CELLS
    return column * step, row * step, (column + 1) * step, (row + 1) * step


def add_tree(
    crown: MeshBuilder, plain: MeshBuilder, xy: Vector, rng: np.random.Generator
) -> None:
    """Plant a tree of 3 to 6 m."""
    height = rng.uniform(1.9, 2.6)
    plain.cylinder(xy, rng.uniform(0.1, 0.17), 0.0, height + 0.5, (88, 68, 52), sides=8)
    radius = rng.uniform(0.8, 1.35)
    for _ in range(int(rng.integers(4, 7))):
        shift = rng.normal(0.0, 0.5, 3) * [1.0, 1.0, 0.9]
        centre = np.array([xy[0], xy[1], height + radius]) + shift * radius * 0.9
        crown.blob(centre, radius * rng.uniform(0.5, 0.9), rng)


def add_car(
    plain: MeshBuilder, xy: Vector, yaw_rad: float, rng: np.random.Generator
) -> None:
    """Park a car, or a van, at the kerb."""
    colour, van = pick(rng, CARS), bool(rng.random() < 0.25)
    length, width = rng.uniform(3.8, 4.4), rng.uniform(1.6, 1.75)
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)

    def at(x: float, y: float = 0.0) -> tuple[float, float]:
        return xy[0] + c * x - s * y, xy[1] + s * x + c * y

    belt = 0.82 if not van else 1.0
    plain.box(at(0.0), (length, width, belt - 0.28), 0.28, yaw_rad, colour)
    cabin_length = (0.55 if not van else 0.78) * length
    hx, hy = cabin_length / 2, width / 2 * 0.94
    outline = [(-hx, -hy), (hx, -hy), (hx, hy), (-hx, hy)]
    rise = 0.5 if not van else 0.75
    plain.prism(outline, at(-0.05 * length), belt, rise, yaw_rad, (42, 48, 56), top_scale=0.8)
    roof = (cabin_length * 0.8, width * 0.76, 0.05)
    plain.box(at(-0.05 * length), roof, belt + rise, yaw_rad, colour)
    for x in (-0.3, 0.3):
        plain.box(at(x * length), (0.62, width + 0.04, 0.6), 0.0, yaw_rad, (26, 26, 28))
        plain.box(at(x * length), (0.3, width + 0.08, 0.3), 0.15, yaw_rad, (160, 162, 166))
    for y in (-0.36, 0.36):
        for end, glow in ((length / 2, (250, 246, 220)), (-length / 2, (180, 20, 20))):
            plain.box(at(end, y * width), (0.06, 0.3, 0.14), 0.55, yaw_rad, glow)
    for x in (-length / 2, length / 2):
        plain.box(at(x), (0.08, 0.5, 0.12), 0.4, yaw_rad, (236, 232, 210))


def add_lamp(plain: MeshBuilder, xy: Vector, yaw_rad: float, height_m: float) -> None:
    """Put up a street lamp whose arm points along ``yaw_rad``."""
    plain.cylinder(xy, 0.07, 0.0, height_m, (54, 60, 58), sides=8, top_scale=0.6)
    plain.cylinder(xy, 0.16, 0.0, 0.5, (44, 50, 48), sides=8)
    arm = (xy[0] + 0.4 * math.cos(yaw_rad), xy[1] + 0.4 * math.sin(yaw_rad))
    plain.box(arm, (0.9, 0.07, 0.07), height_m - 0.05, yaw_rad, (54, 60, 58))
    head = (xy[0] + 0.8 * math.cos(yaw_rad), xy[1] + 0.8 * math.sin(yaw_rad))
    plain.box(head, (0.34, 0.2, 0.16), height_m - 0.2, yaw_rad, (232, 228, 200))


def add_small(
    plain: MeshBuilder, xy: Vector, yaw_rad: float, rng: np.random.Generator
) -> None:
    """Put a bin, a bench, a hydrant, a mailbox or bollards at the pavement."""
    colour, kind = pick(rng, DOORS), int(rng.integers(5))
    c, s = math.cos(yaw_rad), math.sin(yaw_rad)
    if kind == 0:
        plain.cylinder(xy, 0.25, 0.0, 0.85, colour, sides=10, top_scale=1.15)
    elif kind == 1:
        for z, depth, shift in ((0.42, 0.42, 0.0), (0.6, 0.06, 0.2), (0.75, 0.06, 0.22)):
            at = (xy[0] - s * shift, xy[1] + c * shift)
            plain.box(at, (1.6, depth, 0.07), z, yaw_rad, (134, 92, 56))
        for x in (-0.6, 0.6):
            at = (xy[0] + c * x, xy[1] + s * x)
            plain.box(at, (0.08, 0.4, 0.42), 0.0, yaw_rad, (60, 60, 60))
    elif kind == 2:
        plain.cylinder(xy, 0.13, 0.0, 0.6, (190, 40, 34), sides=8)
        plain.cylinder(xy, 0.18, 0.35, 0.1, (190, 40, 34), sides=8)
        plain.cylinder(xy, 0.1, 0.6, 0.15, (220, 200, 60), sides=8, top_scale=0.4)
    elif kind == 3:
        plain.box(xy, (0.5, 0.42, 0.7), 0.5, yaw_rad, colour)
        plain.box(xy, (0.1, 0.1, 0.5), 0.0, yaw_rad, (70, 70, 70))
        plain.box(xy, (0.4, 0.46, 0.08), 0.95, yaw_rad, (240, 238, 230))
    else:
        for x in (-0.9, 0.0, 0.9):
            at = (xy[0] + c * x, xy[1] + s * x)
            plain.cylinder(at, 0.08, 0.0, 0.85, (70, 72, 76), sides=8)
            plain.cylinder(at, 0.085, 0.6, 0.1, (236, 236, 230), sides=8)


def add_planter(
    crown: MeshBuilder, plain: MeshBuilder, xy: Vector, yaw_rad: float,
    rng: np.random.Generator,
) -> None:
    """Put a box with a bush at the pavement."""
    plain.box(xy, (1.1, 0.5, 0.45), 0.0, yaw_rad, pick(rng, ((150, 140, 126), (122, 84, 60))))
    for x in (-0.3, 0.3):
        at = (xy[0] + x * math.cos(yaw_rad), xy[1] + x * math.sin(yaw_rad), 0.62)
        crown.blob(at, rng.uniform(0.26, 0.4), rng)


def add_poster_column(
    signs: MeshBuilder, plain: MeshBuilder, xy: Vector, rng: np.random.Generator
) -> None:
    """Put up an advertising column."""
    signs.cylinder(xy, 0.55, 0.2, 2.3, uv=atlas_cell(rng, int(rng.integers(1, ATLAS_CELLS))),
                   sides=16)
    plain.cylinder(xy, 0.6, 0.0, 0.2, (110, 108, 104), sides=16)
    plain.cylinder(xy, 0.66, 2.5, 0.35, (60, 84, 74), sides=16, top_scale=0.2)


def add_blade_sign(
    signs: MeshBuilder, plain: MeshBuilder, xy: Vector, yaw_rad: float, z0: float,
    rng: np.random.Generator,
) -> None:
    """Hang a name plate across the pavement; ``yaw_rad`` points from the wall to the street."""
    at = (xy[0] + 0.5 * math.cos(yaw_rad), xy[1] + 0.5 * math.sin(yaw_rad))
    signs.box(at, (0.8, 0.08, 0.8), z0, yaw_rad, uv=atlas_cell(rng, 0))
    plain.box(at, (1.0, 0.05, 0.05), z0 + 0.85, yaw_rad, (40, 40, 40))
