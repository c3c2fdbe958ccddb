# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training: what it compares is the same work, and what it prints is there."""

import json
import sys

import numpy as np
import pytest
import torch

from netvlad_ros.cli import bench_train
from netvlad_ros.cli.main import main
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.whitening import whitening_from
from netvlad_ros.training import features
from netvlad_ros.training.features import describe


class Pixels:
    """Random images."""

    images = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices) -> np.ndarray:
        """Return some of them."""
        return self.images[np.asarray(indices)]


def make_network() -> DescriptorNetwork:
    torch.manual_seed(0)
    backbone, pooling = make_backbone('mobilenet_v3_small_s16'), NetVLAD(4, 48)
    with torch.no_grad():
        pooling.centres.normal_()
        pooling.assignment.normal_()
    whitening = whitening_from(torch.randn(16, 192) / 14, torch.zeros(16))
    return DescriptorNetwork(InputPolicy(height=64, width=96), backbone, pooling, whitening).eval()


def test_the_port_writes_the_same_descriptors_to_hdf5(tmp_path):
    h5py = pytest.importorskip('h5py')
    network, images = make_network(), Pixels()
    bench_train._port_cache(network, images, range(5), tmp_path / 'cache.h5')
    with h5py.File(tmp_path / 'cache.h5') as file:
        assert file['features'].dtype == np.float32
        np.testing.assert_allclose(file['features'][:], describe(network, images), atol=1e-5)


def test_the_port_runs_without_hdf5(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    assert bench_train._h5py() is None
    bench_train._port_cache(make_network(), Pixels(), range(2), tmp_path / 'cache.h5')
    assert not list(tmp_path.iterdir())


def test_a_shared_forward_gives_the_same_rows(monkeypatch):
    network, images = make_network(), Pixels()
    calls = []
    monkeypatch.setattr(features, 'fast_forward', lambda *given: calls.append(given) or network)
    few = features.forward_for(network, images, features.WORTH_COMPILING - 1)
    assert few is network and not calls
    many = features.forward_for(network, images, features.WORTH_COMPILING)
    out = np.zeros((5, network.dim), np.float32)
    shared = []

    def forward(pixels):
        shared.append(len(pixels))
        return many(pixels)

    features.describe_rows(network, images, np.array([3, 1]), out, forward=forward)
    assert shared == [2]
    expected = describe(network, images)
    np.testing.assert_allclose(out[[1, 3]], expected[[1, 3]], atol=1e-6)
    assert len(calls) == 1 and not out[[0, 2, 4]].any()


@pytest.mark.slow
def test_the_ratios_are_those_of_the_rates(capsys):
    command = 'bench train --backbone mobilenet_v3_small_s16 --count 4 --tuples 1 --rounds 1'
    assert main([*command.split(), '--json']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    bare = result['bare_forward_images_per_s']
    for name in ('cache_refresh', 'cache_refresh_from_files'):
        rate = result[f'{name}_images_per_s']
        assert rate > 0 and result[f'{name}_of_bare_forward'] == pytest.approx(rate / bare)
    assert result['port_cache_file'] in ('HDF5', 'none: h5py is missing, pip install h5py')
    assert 0 < result['training_share_of_loading'] < 1
    assert 0 < result['conversion_share_at_pitts30k'] < 1
