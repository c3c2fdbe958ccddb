# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Off-screen rendering of a world with pyvista: a camera pose in, an image with depth out."""

from __future__ import annotations

import functools
import math
import os
import re
import subprocess
import sys
from typing import Any

import cv2
import numpy as np

from netvlad_ros.errors import NetvladError
from netvlad_ros.simulation.ground import shadow_mask
from netvlad_ros.simulation.light import Light
from netvlad_ros.simulation.mesh import Surface, SurfaceKind
from netvlad_ros.simulation.world import World
from netvlad_ros.types import Camera, Float32Array, FloatArray, UInt8Array

NEAR_M, FAR_M = 0.2, 400.0
WINDOW_VARIABLE = 'VTK_DEFAULT_OPENGL_WINDOW'

# Without a display VTK renders through EGL; asking for it at once avoids a try with X and its
# warning. A VTK without GPU and EGL can only be tried in a process of its own: it may crash.
PROBE = """
import pyvista
plotter = pyvista.Plotter(off_screen=True, window_size=(16, 16))
plotter.add_mesh(pyvista.Plane())
assert plotter.screenshot(return_img=True).max() > 0
"""
PROBE_TIMEOUT_S = 120


class RenderError(NetvladError):
    """Off-screen rendering cannot start on this machine."""


def _select_window() -> None:
    if sys.platform.startswith('linux') and not os.environ.get('DISPLAY'):
        os.environ.setdefault(WINDOW_VARIABLE, 'vtkEGLRenderWindow')


@functools.lru_cache(maxsize=1)
def require_rendering() -> None:
    """Render one small picture in a process of its own, once.

    :raises RenderError: it failed; the message names what to install.
    """
    _select_window()
    try:
        result = subprocess.run(
            [sys.executable, '-c', PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S,
            check=False,
        )
        failure = None if result.returncode == 0 else result.stderr
    except subprocess.TimeoutExpired:
        failure = f'no picture after {PROBE_TIMEOUT_S} s'
    if failure is not None:
        raise RenderError(explain(failure))


def explain(failure: str) -> str:
    """Return one line that says what to install, from the output of a failed probe."""
    # VTK colours its log and puts time, thread, file and level before each message.
    plain = re.sub(r'\x1b\[[0-9;]*m', '', failure)
    lines = [line.split('| ', 1)[-1].strip() for line in plain.splitlines() if line.strip()]
    reason = lines[-1] if lines else 'the process ended without a message'
    if 'No module named' in reason:
        return f'cannot render: {reason}; install it with: pip install pyvista'
    return (
        'cannot render without a display: a system library for OpenGL is missing or does not '
        'work; install Mesa with: sudo apt install libegl1 libgl1 libglx-mesa0 libegl-mesa0 '
        f'libxrender1 ({reason})'
    )


def _texture(image_rgb: UInt8Array) -> Any:
    import pyvista as pv

    texture = pv.Texture(image_rgb)
    texture.mipmap, texture.interpolate, texture.repeat = True, True, True
    # Mesa draws in software, where anisotropic filtering doubles the time of a picture.
    texture.SetMaximumAnisotropicFiltering(1.0)
    return texture


class Renderer:
    """Draws one world for one camera.

    :raises RenderError: rendering cannot start.
    """

    def __init__(self, world: World, camera: Camera) -> None:
        require_rendering()
        import pyvista as pv

        self._world, self._camera = world, camera
        self._plotter = pv.Plotter(off_screen=True, window_size=camera.size_wh, lighting=None)
        self._plotter.render_window.SetMultiSamples(0)
        self._sun = pv.Light(light_type='scene light', positional=False)
        self._plotter.add_light(self._sun)
        self._lit: list[Any] = []
        self._sky: list[Any] = []
        self._ground: tuple[Any, UInt8Array] | None = None
        for surface in world.surfaces:
            self._add(surface)
        assert camera.K is not None
        self._plotter.camera.clipping_range = (NEAR_M, FAR_M)
        height = camera.size_wh[1]
        self._plotter.camera.view_angle = 2 * math.degrees(
            math.atan(height / 2 / float(camera.K[1, 1]))
        )
        self._plotter.show(auto_close=False)

    def _add(self, surface: Surface) -> None:
        import pyvista as pv

        count = len(surface.quads)
        faces = np.concatenate([np.full((count, 1), 4), surface.quads], axis=1)
        mesh = pv.PolyData(surface.points, faces.ravel())
        options: dict[str, Any] = {'lighting': surface.kind is not SurfaceKind.SKY}
        if surface.texture is None:
            mesh.point_data['rgb'] = surface.rgb
            options.update(scalars='rgb', rgb=True)
        else:
            mesh.active_texture_coordinates = surface.uv
            options.update(texture=_texture(surface.texture))
        actor = self._plotter.add_mesh(mesh, show_scalar_bar=False, **options)
        if surface.kind is SurfaceKind.SKY:
            self._sky.append(actor)
        else:
            self._lit.append(actor)
        if surface.kind is SurfaceKind.GROUND:
            assert surface.texture is not None
            self._ground = (actor, surface.texture)

    def set_light(self, light: Light, cast_shadows: bool = True) -> None:
        """Change the light.

        :param cast_shadows: also redraw the shadows on the ground, which takes longer.
        """
        flat = math.cos(light.sun_elevation_rad)
        direction = np.array([flat * math.cos(light.sun_azimuth_rad),
                              flat * math.sin(light.sun_azimuth_rad),
                              math.sin(light.sun_elevation_rad)])
        self._sun.position, self._sun.focal_point = tuple(direction), (0.0, 0.0, 0.0)
        self._sun.intensity = light.sun
        for actor in self._lit:
            actor.prop.ambient, actor.prop.diffuse = light.ambient, 1.0
        for actor in self._sky:
            actor.prop.color = (light.sky,) * 3
        if cast_shadows and self._ground is not None:
            actor, texture = self._ground
            shadow = shadow_mask(
                self._world.blocks, self._world.ground, light.sun_azimuth_rad,
                light.sun_elevation_rad,
            )
            direct = light.sun * math.sin(light.sun_elevation_rad)
            share = direct / (direct + light.ambient)
            factor = cv2.convertScaleAbs(shadow, alpha=-share, beta=255)
            dark = cv2.cvtColor(factor, cv2.COLOR_GRAY2RGB)
            actor.texture = _texture(cv2.multiply(texture, dark, scale=1 / 255))

    def render(self, T_world_camera: FloatArray) -> tuple[UInt8Array, Float32Array]:
        """Return the view of an optical frame.

        :returns: (H, W, 3) uint8 RGB and (H, W) float32 depth along the optical axis in metres,
            inf on the sky.
        """
        view, window = self._plotter.camera, self._plotter.render_window
        position, forward = T_world_camera[:3, 3], T_world_camera[:3, 2]
        view.position = tuple(position)
        view.focal_point = tuple(position + forward)
        view.up = tuple(-T_world_camera[:3, 1])
        view.clipping_range = (NEAR_M, FAR_M)
        window.Render()
        return self._read_rgb(), self._read_depth()

    def _read_rgb(self) -> UInt8Array:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        width, height = self._camera.size_wh
        buffer = vtkUnsignedCharArray()
        self._plotter.render_window.GetPixelData(0, 0, width - 1, height - 1, 0, buffer, 0)
        pixels: UInt8Array = vtk_to_numpy(buffer)  # type: ignore[no-untyped-call]
        return np.ascontiguousarray(pixels.reshape(height, width, 3)[::-1])

    def _read_depth(self) -> Float32Array:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkFloatArray

        width, height = self._camera.size_wh
        buffer = vtkFloatArray()
        self._plotter.render_window.GetZbufferData(0, 0, width - 1, height - 1, buffer)
        values: Float32Array = vtk_to_numpy(buffer)  # type: ignore[no-untyped-call]
        z = values.reshape(height, width)[::-1]
        depth = NEAR_M * FAR_M / (FAR_M - z * np.float32(FAR_M - NEAR_M))
        # The sky dome is far behind every house.
        return np.where(depth > 150.0, np.inf, depth).astype(np.float32)

    def close(self) -> None:
        """Free the renderer's memory."""
        self._plotter.close()
