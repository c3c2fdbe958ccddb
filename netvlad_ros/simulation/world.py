# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A town to drive through: houses on both sides of a closed street, a function of its seed.

Every house front is drawn from its own seed. A few are repeated on purpose: one corner is built
a second time elsewhere, and one side has a terrace of identical houses, so that a place cannot be
told from its front alone everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from netvlad_ros.simulation import furniture
from netvlad_ros.simulation.facade import draw_facade
from netvlad_ros.simulation.ground import Block, GroundMap, draw_ground
from netvlad_ros.simulation.layout import Street, edges, left_normals
from netvlad_ros.simulation.lots import HOUSE_DEPTH_M, Lot, Lots
from netvlad_ros.simulation.materials import leaves, pick, sky, wall
from netvlad_ros.simulation.mesh import MeshBuilder, Surface, SurfaceKind
from netvlad_ros.types import FloatArray

PARTY_WALL_M = 12.0
SKY_RADIUS_M = 180.0


@dataclass(frozen=True)
class World:
    """What a camera can see.

    :param blocks: footprints that cast shadows on the ground.
    :param twin_corners: indices of the street's corners that were built alike.
    """

    street: Street
    surfaces: tuple[Surface, ...]
    blocks: tuple[Block, ...]
    ground: GroundMap
    twin_corners: tuple[int, int]


def make_world(seed: int, street: Street) -> World:
    """Return the town of a seed along a street."""
    rng = np.random.default_rng((seed, 101))
    builder = _TownBuilder(rng, street)
    return builder.build()


class _TownBuilder:
    """Collects the surfaces of one town."""

    def __init__(self, rng: np.random.Generator, street: Street) -> None:
        self.rng, self.street = rng, street
        self.plain, self.crown, self.signs = MeshBuilder(), MeshBuilder(), MeshBuilder()
        self.walls = MeshBuilder()
        self.surfaces: list[Surface] = []
        self.blocks: list[Block] = []
        self.ground = GroundMap(street)
        corners = len(street.centre_xy)
        first = int(rng.integers(corners))
        self.twins = (first, (first + corners // 2) % corners)

    def build(self) -> World:
        """Build houses first, then what stands in front of them, then ground and sky."""
        lots = Lots(self.rng, self.street, self.twins)
        if not lots.inner:
            self._monument(self.street.centre_xy.mean(axis=0))
        for lot in lots.outer + lots.inner:
            self._garden(lot) if lot.garden else self._house(lot)
        self._furnish()
        side = wall(self.rng, 'plaster', round(PARTY_WALL_M * 30), round(HOUSE_DEPTH_M * 30), 30)
        for mesh, texture in ((self.crown, leaves(self.rng)), (self.walls, side),
                              (self.signs, furniture.poster_atlas(self.rng))):
            if len(mesh):
                self.surfaces.append(mesh.build(texture))
        self.surfaces.append(self.plain.build())
        self.surfaces += [self._ground_surface(), self._sky_surface()]
        blocks = tuple(self.blocks)
        return World(self.street, tuple(self.surfaces), blocks, self.ground, self.twins)

    def _house(self, lot: Lot) -> None:
        facade = draw_facade(lot.spec)
        height, inward = lot.spec.height_m, lot.inward
        left, right, back_left, back_right = (
            np.append(xy, 0.0)
            for xy in (lot.left_xy, lot.right_xy, lot.back_left_xy, lot.back_right_xy)
        )
        up = np.array([0.0, 0.0, height])
        front = MeshBuilder()
        front.quad([left, right, right + up, left + up])
        self.surfaces.append(front.build(facade.texture))
        part = (0.0, 0.0, 1.0, height / PARTY_WALL_M)
        self.walls.quad([right, back_right, back_right + up, right + up], part)
        self.walls.quad([back_left, left, left + up, back_left + up], part)
        rise = np.array([0.0, 0.0, 1.8])
        eaves = np.append(inward, 0.0) * -0.3
        roof_rgb = pick(self.rng, ((150, 78, 60), (96, 92, 92), (120, 96, 84)))
        ridge_left = (left + back_left) / 2 + up + rise
        ridge_right = (right + back_right) / 2 + up + rise
        self.plain.quad([left + up + eaves, right + up + eaves, ridge_right, ridge_left],
                        rgb=roof_rgb)
        self.plain.quad([back_right + up, back_left + up, ridge_left, ridge_right],
                        rgb=roof_rgb, shade=0.85)
        for relief in facade.reliefs:
            x0, z0, x1, z1 = relief.box_m
            along = (lot.right_xy - lot.left_xy) / lot.spec.width_m
            centre = lot.left_xy + along * (x0 + x1) / 2 - inward * relief.depth_m / 2
            self.plain.box(centre, (x1 - x0, relief.depth_m, z1 - z0), z0, lot.yaw_rad, relief.rgb)
        outline = [lot.left_xy, lot.right_xy, lot.back_right_xy, lot.back_left_xy]
        self.blocks.append(Block(np.stack(outline), height))

    def _garden(self, lot: Lot) -> None:
        """Leave a gap between houses: a low wall, or a hedge, with trees behind it."""
        rng, middle = self.rng, (lot.left_xy + lot.right_xy) / 2
        width = lot.spec.width_m
        wall_rgb = pick(rng, ((176, 160, 140), (150, 84, 66), (190, 188, 180)))
        at = middle + lot.inward * 0.2
        self.plain.box(at, (width, 0.3, 1.1), 0.0, lot.yaw_rad, wall_rgb)
        self.plain.box(at, (width, 0.4, 0.1), 1.1, lot.yaw_rad, (120, 116, 110))
        count = max(2, int(width / 1.6))
        along = (lot.right_xy - lot.left_xy) / width
        for k in range(count):
            spot = lot.left_xy + along * width * (k + 0.5) / count
            spot = spot + lot.inward * rng.uniform(1.2, 3.5)
            furniture.add_tree(self.crown, self.plain, spot, rng)

    def _monument(self, xy: FloatArray) -> None:
        """Stand a poster column with plants in a square that is too small for houses."""
        self.plain.cylinder(xy, 1.2, 0.0, 0.4, (160, 156, 150), sides=16)
        furniture.add_poster_column(self.signs, self.plain, xy, self.rng)
        for k in range(3):
            angle = 2.1 * k
            spot = xy + 1.0 * np.array([math.cos(angle), math.sin(angle)])
            furniture.add_planter(self.crown, self.plain, spot, angle, self.rng)

    def _furnish(self) -> None:
        """Stand trees, cars, lamps and other things along both pavements."""
        rng, h = self.rng, self.street.half_width_m
        corners, normals = self.street.centre_xy, left_normals(self.street.centre_xy)
        for corner, along, normal in zip(corners, edges(corners), normals, strict=True):
            length = float(np.linalg.norm(along))
            unit = along / length
            yaw = math.atan2(unit[1], unit[0])
            for side in (-1.0, 1.0):
                s = h + rng.uniform(0.5, 3.0)
                while s < length - h:
                    spot = corner + unit * s + normal * side * (h - 0.75)
                    to_street = yaw - side * math.pi / 2
                    s += self._one_thing(spot, yaw, to_street, corner + unit * s, normal * side)

    def _one_thing(
        self, spot: FloatArray, yaw: float, to_street: float, centre: FloatArray,
        outward: FloatArray,
    ) -> float:
        """Put one thing at the pavement and return how far along the next one may be."""
        rng, h, kind = self.rng, self.street.half_width_m, self.rng.random()
        if kind < 0.2:
            furniture.add_tree(self.crown, self.plain, spot, rng)
        elif kind < 0.42 and h >= 4.0:
            turned = yaw + (math.pi if rng.random() < 0.5 else 0.0)
            furniture.add_car(self.plain, centre + outward * (h * 0.7 - 0.55), turned, rng)
            return float(rng.uniform(4.8, 8.0))
        elif kind < 0.54:
            furniture.add_lamp(self.plain, spot, to_street, float(rng.uniform(3.2, 4.4)))
        elif kind < 0.62 and h >= 4.0:
            furniture.add_poster_column(self.signs, self.plain, spot, rng)
        elif kind < 0.74:
            wall = spot + outward * 0.75
            furniture.add_blade_sign(self.signs, self.plain, wall, to_street,
                                     float(rng.uniform(2.5, 3.4)), rng)
        elif kind < 0.84:
            furniture.add_planter(self.crown, self.plain, spot, yaw, rng)
        else:
            furniture.add_small(self.plain, spot, yaw, rng)
        return float(rng.uniform(2.0, 4.5))

    def _ground_surface(self) -> Surface:
        (x0, y0), side = self.ground.low_xy, self.ground.side_m
        mesh, cells = MeshBuilder(), 12
        for i in range(cells):
            for j in range(cells):
                u0, u1, v0, v1 = i / cells, (i + 1) / cells, j / cells, (j + 1) / cells
                xs, ys = (x0 + side * u0, x0 + side * u1), (y0 + side * v0, y0 + side * v1)
                corners = [(xs[0], ys[0], 0), (xs[1], ys[0], 0), (xs[1], ys[1], 0),
                           (xs[0], ys[1], 0)]
                mesh.quad(corners, (u0, v0, u1, v1))
        texture = draw_ground(self.rng, self.street, self.ground)
        return mesh.build(texture, SurfaceKind.GROUND)

    def _sky_surface(self) -> Surface:
        centre = np.append(self.street.centre_xy.mean(axis=0), -6.0)
        mesh, rows, columns = MeshBuilder(), 10, 40

        def at(i: int, j: int) -> FloatArray:
            polar, azimuth = math.pi / 2 * i / rows, 2 * math.pi * j / columns
            return np.asarray(centre + SKY_RADIUS_M * np.array(
                [math.cos(polar) * math.cos(azimuth), math.cos(polar) * math.sin(azimuth),
                 math.sin(polar)]))

        for i in range(rows):
            for j in range(columns):
                part = (j / columns, i / rows, (j + 1) / columns, (i + 1) / rows)
                mesh.quad([at(i, j), at(i, j + 1), at(i + 1, j + 1), at(i + 1, j)], part)
        return mesh.build(sky(self.rng), SurfaceKind.SKY)
