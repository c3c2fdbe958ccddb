# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image -> unit vector: NetVLAD and other poolings, backbones, whitening, bundles, runtimes."""

from netvlad_ros.descriptor.bundle import (
    BundleInfo,
    ModelBundle,
    load_bundle,
    make_bundle,
    save_bundle,
)
from netvlad_ros.descriptor.descriptor import Descriptor, load_descriptor

__all__ = [
    'BundleInfo',
    'Descriptor',
    'ModelBundle',
    'load_bundle',
    'load_descriptor',
    'make_bundle',
    'save_bundle',
]
