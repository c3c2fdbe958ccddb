# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The views of keyframes that verification asks for: recent ones in memory, old ones re-read."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
import threading
from typing import Optional

import cv2
import numpy as np

from netvlad_ros.config import VerificationConfig
from netvlad_ros.errors import NetvladError
from netvlad_ros.keyframes import KeyframeMap
from netvlad_ros.loop_closure.geometry.features import FeatureExtractor
from netvlad_ros.loop_closure.view import View
from netvlad_ros.types import Frame, Keyframe, UInt8Array

JPEG_QUALITY = 85
# Keyframes on either side of a view that may share landmarks with it.
NEIGHBOURS = 2


class ViewStore:
    """Keeps the features of the last keyframes; thread-safe.

    A keyframe that has left memory, or was stored by an earlier run, is seen through its
    thumbnail: fewer features and no depth.
    """

    def __init__(
        self, keyframe_map: KeyframeMap, extractor: FeatureExtractor, config: VerificationConfig
    ) -> None:
        self._map = keyframe_map
        self._extractor = extractor
        self._capacity = config.views_in_memory
        self._lock = threading.Lock()
        self._views: OrderedDict[int, View] = OrderedDict()

    def add(self, keyframe_id: int, frame: Frame) -> View:
        """Find the features of a new keyframe and keep them."""
        view = View.from_frame(frame).compact(self._extractor)
        self._keep(keyframe_id, view)
        return view

    def get(self, keyframe: Keyframe) -> View:
        """Return the view of a keyframe; it has no features if nothing of it was kept."""
        with self._lock:
            view = self._views.get(keyframe.id)
            if view is not None:
                self._views.move_to_end(keyframe.id)
                return _with_descriptors(view, self._extractor, np.float32)
        view = View(None, T_odom_base=keyframe.T_odom_base)
        jpeg = self._map.thumbnail(keyframe.id)
        image_rgb = None if jpeg is None else decode_thumbnail(jpeg)
        if image_rgb is not None:
            camera = self._map.camera(keyframe.id)
            if 0 in camera.size_wh:
                camera = replace(camera, K=None)  # of an image of unknown size
            view = View(image_rgb, camera, keyframe.T_odom_base)
            view = view.compact(self._extractor)
            self._keep(keyframe.id, view)
        return view

    def neighbours(self, keyframe: Keyframe) -> list[View]:
        """Return the views just before and after a keyframe in its own session, nearest first."""
        views = []
        for step in range(1, NEIGHBOURS + 1):
            for neighbour_id in (keyframe.id - step, keyframe.id + step):
                neighbour = self._keyframe(neighbour_id)
                if neighbour is not None and neighbour.session == keyframe.session:
                    views.append(self.get(neighbour))
        return views

    def _keyframe(self, keyframe_id: int) -> Optional[Keyframe]:
        try:
            return self._map.keyframe(keyframe_id)
        except NetvladError:
            return None

    def _keep(self, keyframe_id: int, view: View) -> None:
        with self._lock:
            self._views[keyframe_id] = _with_descriptors(view, self._extractor, np.float16)
            # Queries that are not stored share one id, whose entry may be an old one.
            self._views.move_to_end(keyframe_id)
            while len(self._views) > self._capacity:
                self._views.popitem(last=False)


def _with_descriptors(view: View, extractor: FeatureExtractor, dtype: type) -> View:
    """Return a view whose feature descriptors have another type: half the memory while kept."""
    local = view.local(extractor)
    if local is None:
        return view
    features = replace(local.features, descriptors=local.features.descriptors.astype(dtype))
    return replace(view, _local=replace(local, features=features), _lock=threading.Lock())


def encode_thumbnail(image_rgb: UInt8Array, longer_side_px: int) -> Optional[bytes]:
    """Return a JPEG whose longer side is at most ``longer_side_px``, or None for 0."""
    if longer_side_px == 0:
        return None
    height, width = image_rgb.shape[:2]
    scale = min(1.0, longer_side_px / max(height, width))
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(
        '.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return bytes(jpeg)


def decode_thumbnail(jpeg: bytes) -> Optional[UInt8Array]:
    """Return a thumbnail as (H, W, 3) uint8 RGB, None if it is damaged."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if bgr is None:
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
