# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""VLAD, the other poolings, RootSIFT and whitening against plain NumPy."""

import numpy as np
import pytest
import torch

from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor import BundleInfo, Descriptor, make_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.local_projection import LocalProjection
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import KINDS, GeM, MaxPooling, NoPooling, make_pooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.runtimes.prepared import random_images
from netvlad_ros.descriptor.vlad import VLAD
from netvlad_ros.descriptor.whitening import fit_whitening
from netvlad_ros.errors import InputError, ModelError


def unit_rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_vlad_sums_residuals_to_the_nearest_centre():
    rng = np.random.default_rng(0)
    features, centres = rng.normal(size=(8, 30)), unit_rows(rng.normal(size=(5, 8)))
    expected = np.zeros((5, 8))
    for x in unit_rows(features.T):
        nearest = np.argmin(((x - centres) ** 2).sum(axis=1))
        expected[nearest] += x - centres[nearest]
    expected = np.sign(expected) * np.sqrt(np.abs(expected))
    used = np.abs(expected).sum(axis=1) > 0
    expected[used] = unit_rows(expected[used])
    layer = VLAD(5, 8).double()
    layer.init_from_clusters(torch.from_numpy(centres), torch.from_numpy(features.T))
    actual = layer(torch.from_numpy(features).reshape(1, 8, 5, 6))[0]
    assert np.allclose(actual, expected.reshape(-1) / np.linalg.norm(expected), atol=1e-9)


def test_poolings_against_numpy():
    x = np.random.default_rng(1).uniform(0.1, 1.0, size=(2, 6, 4, 8))
    tensor = torch.from_numpy(x)
    expected = {
        'max': x.max(axis=(2, 3)),
        'average': x.mean(axis=(2, 3)),
        'none': x.reshape(2, -1),
    }
    for kind, rows in expected.items():
        layer = make_pooling({'kind': kind}, 0, 6)
        assert np.allclose(layer(tensor), unit_rows(rows), atol=1e-9)
        assert layer.output_dim(6, 4, 8) == rows.shape[1]
    grid = x.reshape(2, 6, 2, 2, 2, 4).max(axis=(3, 5)).reshape(2, -1)
    assert np.allclose(MaxPooling((2, 2))(tensor), unit_rows(grid), atol=1e-9)


def test_gem_lies_between_average_and_max():
    x = np.random.default_rng(2).uniform(0.1, 1.0, size=(1, 6, 4, 4))
    means = {1.0: x.mean(axis=(2, 3)), 3.0: ((x**3).mean(axis=(2, 3))) ** (1 / 3)}
    for exponent, expected in means.items():
        layer = GeM(exponent).double()
        assert np.allclose(layer(torch.from_numpy(x)).detach(), unit_rows(expected), atol=1e-6)
    assert GeM(50.0)(1e4 * torch.from_numpy(x).float()).isfinite().all()


def test_an_unknown_pooling_is_named():
    with pytest.raises(ModelError, match=f"'sum'.*{KINDS[0]}"):
        make_pooling({'kind': 'sum'}, 1, 1)


def test_rootsift_vlad_is_a_descriptor_like_the_others():
    images = random_images(6, 120, 160)
    features = torch.cat([RootSift()(torch.from_numpy(i[None])).flatten(2)[0].T for i in images])
    assert torch.allclose(features.norm(dim=1), torch.ones(len(features)), atol=1e-5)
    layer = VLAD(8, 128)
    layer.init_from_clusters(features[:: len(features) // 8][:8], features)
    policy = InputPolicy(resize='none')
    bundle = make_bundle(DescriptorNetwork(policy, RootSift(), layer), BundleInfo('sift'))
    descriptor = Descriptor(bundle)
    noisy = np.clip(images + np.random.default_rng(0).normal(0, 3, images.shape), 0, 255)
    similarity = descriptor.compute(images) @ descriptor.compute(noisy.astype(np.uint8)).T
    assert (similarity.argmax(axis=1) == np.arange(6)).all()
    blank = descriptor.compute(np.zeros((1, 120, 160, 3), np.uint8))
    assert np.array_equal(blank, np.zeros((1, descriptor.dim), np.float32))


def test_whitening_gives_uncorrelated_unit_variances():
    x = np.random.default_rng(3).normal(size=(400, 12)) @ np.diag(np.arange(1.0, 13.0))
    layer = fit_whitening(x, 5)
    y = x @ layer.weight.detach().numpy().T.astype(np.float64) + layer.bias.detach().numpy()
    assert np.allclose(np.cov(y.T), np.eye(5), atol=1e-4)
    assert np.allclose(y.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize('strength', [0.0, 0.5])
def test_a_weaker_whitening_leaves_a_part_of_the_deviations(strength):
    x = np.random.default_rng(3).normal(size=(400, 12)) @ np.diag(np.arange(1.0, 13.0))
    whole = np.linalg.eigvalsh(np.cov(x.T))[::-1][:5]
    layer = fit_whitening(x, 5, strength)
    y = x @ layer.weight.detach().numpy().T.astype(np.float64)
    assert np.allclose(np.cov(y.T), np.diag(whole ** (1 - strength)), rtol=1e-4, atol=1e-3)


def test_local_features_are_reduced_to_their_principal_axes():
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(500, 12, generator=generator) * torch.linspace(3, 1, 12)
    samples = x / x.norm(dim=1, keepdim=True)
    layer = LocalProjection(12, 4)
    layer.init_from_samples(samples)
    # Whatever the length of a feature: unit length comes first.
    y = layer(7.0 * x.T[None, :, :, None])[0, :, :, 0].T.detach()
    variances = torch.linalg.eigvalsh(torch.cov(samples.T)).flip(0)[:4]
    assert torch.allclose(torch.cov(y.T), torch.diag(variances), atol=1e-5)
    assert torch.allclose(y.mean(dim=0), torch.zeros(4), atol=1e-5)
    with pytest.raises(InputError, match='3 local features of 12 values'):
        layer.init_from_samples(samples[:3])
    with pytest.raises(InputError, match='not finite'):
        layer.init_from_samples(samples * float('nan'))


def test_gram_trick_equals_the_covariance():
    """With few samples of many dimensions the result is that of the SVD of the samples."""
    x = np.random.default_rng(4).normal(size=(40, 300))
    centred = x - x.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:10].T / (singular[:10] / np.sqrt(39))
    layer = fit_whitening(x, 10)
    actual = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    signs = np.sign((actual * expected).sum(axis=0))
    assert np.allclose(actual, signs * expected, atol=1e-4)


def test_cropped_whitening_is_crop_and_renormalise():
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(50, 20)).astype(np.float32))
    layer = fit_whitening(x.numpy(), 16)
    cropped = layer(x)[:, :4]
    assert torch.allclose(layer.cropped(4)(x), cropped / cropped.norm(dim=1, keepdim=True))
    with pytest.raises(InputError, match=r'17.*1 to 16'):
        layer.cropped(17)


@pytest.mark.parametrize(
    ('samples', 'dim', 'words'),
    [
        (np.ones((8, 20)), 8, 'more than 8'),
        (np.ones((30, 20)), 21, '1 to 20'),
        (np.tile(np.eye(3, 20), (10, 1)), 5, 'span 2'),
        (np.full((30, 20), np.nan), 5, 'finite'),
    ],
)
def test_whitening_refuses_too_little(samples, dim, words):
    with pytest.raises(InputError, match=words):
        fit_whitening(samples, dim)


def test_no_pooling_depends_on_the_image_size():
    policy = InputPolicy(resize='none', height=64, width=64)
    network = DescriptorNetwork(policy, make_backbone('alexnet'), NoPooling())
    descriptor = Descriptor(
        make_bundle(network, BundleInfo('none')), DescriptorConfig(runtime='torch')
    )
    assert descriptor.compute(random_images(1, 64, 64)).shape == (1, descriptor.dim)
    with pytest.raises(InputError, match='128x96'):
        descriptor.compute(random_images(1, 96, 128))
