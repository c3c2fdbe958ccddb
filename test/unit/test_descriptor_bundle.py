# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles, the names of models, the registry and its downloads."""

import argparse
from dataclasses import replace
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import re
import shutil
import threading

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from netvlad_ros.cli import models
from netvlad_ros.descriptor import BundleInfo, load_bundle, make_bundle, save_bundle
from netvlad_ros.descriptor.backbones import BACKBONES, make_backbone
from netvlad_ros.descriptor.download import download
from netvlad_ros.descriptor.local_projection import LocalProjection
from netvlad_ros.descriptor.locate import cache_folder, find_model
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import GeM, MaxPooling
from netvlad_ros.descriptor.preprocess import InputPolicy, Normalise
from netvlad_ros.descriptor.registry import RegistryEntry, read_registry
from netvlad_ros.descriptor.rootsift import RootSift
from netvlad_ros.descriptor.runtimes.prepared import for_inference, random_images
from netvlad_ros.descriptor.vlad import VLAD
from netvlad_ros.descriptor.whitening import fit_whitening
from netvlad_ros.errors import ModelError


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('NETVLAD_MODELS', str(tmp_path / 'own'))


def small_network(
    seed=0, whiten=True, backbone='mobilenet_v3_small_s16', pooling=None, projection=None
):
    torch.manual_seed(seed)
    backbone = make_backbone(backbone)
    pooling = NetVLAD(4, backbone.channels) if pooling is None else pooling
    policy = InputPolicy(height=64, width=96, colour_order='bgr')
    whitening = None
    if whiten:
        samples = np.random.default_rng(seed).normal(size=(20, 4 * backbone.channels))
        whitening = fit_whitening(samples, 8)
    return DescriptorNetwork(policy, backbone, pooling, whitening, projection)


INFO = BundleInfo('small', 'Apache-2.0', 'test', {'data': 'none'}, 0.8)


# ---------------------------------------------------------------- backbones


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_are_as_the_table_says(name):
    backbone = make_backbone(name, on_meta=True)
    features = backbone(torch.empty(1, 3, 128, 192, device='meta'))
    stride = backbone.spec.stride
    assert features.shape[1] == backbone.channels
    assert abs(features.shape[2] - 128 / stride) <= 1
    assert abs(features.shape[3] - 192 / stride) <= 1
    backbone.train_only()
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    for prefix in backbone.spec.trained:
        assert any(n.startswith(f'{prefix}.') for n in trained)
    assert trained < {n for n, _ in backbone.named_parameters()}


@pytest.mark.parametrize('name', ['vgg16', 'alexnet'])
def test_the_papers_networks_end_before_the_relu(name):
    last = list(make_backbone(name, on_meta=True).modules())[-1]
    assert isinstance(last, torch.nn.Conv2d)


def test_folded_batch_norms_change_nothing():
    network = small_network(backbone='resnet50_layer3', whiten=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    network.double().eval()
    images = torch.from_numpy(random_images(1, 64, 96))
    folded = for_inference(network, 'fp32').double()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(images), network(images), atol=1e-5)


# ---------------------------------------------------------------- preprocessing


def test_normalisation_is_in_the_networks_colours_and_scale():
    policy = InputPolicy(
        mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0), value_range=255.0, colour_order='bgr'
    )
    rgb = np.array([[[[200, 100, 50]]]], np.uint8)
    bgr = Normalise(policy)(torch.from_numpy(rgb)).flatten()
    assert bgr.tolist() == pytest.approx([50 - 10, (100 - 20) / 2, (200 - 30) / 4], abs=1e-4)
    unit_range = Normalise(replace(policy, value_range=1.0, colour_order='rgb'))
    expected = [200 / 255 - 10, (100 / 255 - 20) / 2, (50 / 255 - 30) / 4]
    assert unit_range(torch.from_numpy(rgb)).flatten().tolist() == pytest.approx(
        expected, abs=1e-4
    )


def test_shrinking_averages_areas_and_resize_is_checked():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    policy = InputPolicy(height=4, width=4)
    assert np.array_equal(policy.resize_image(stripes), np.full((4, 4, 3), 100, np.uint8))
    with pytest.raises(ModelError, match=r"'crop'.*fixed, max_side, none"):
        InputPolicy(resize='crop')
    with pytest.raises(ModelError, match='not valid'):
        InputPolicy.from_dict({'mean': [0, 0], 'std': [1, 1, 1]})


# ---------------------------------------------------------------- bundles


@pytest.mark.parametrize(
    'pooling', [None, NetVLAD(4, 48, 'v2'), VLAD(4, 48), GeM(2.5), MaxPooling((1, 2))]
)
def test_a_bundle_comes_back_as_it_was(tmp_path, pooling):
    network = small_network(pooling=pooling, whiten=pooling is None)
    saved = save_bundle(tmp_path / 'a.safetensors', network, INFO)
    loaded = load_bundle(tmp_path / 'a.safetensors')
    assert loaded.model_id == saved.model_id
    assert re.fullmatch(r'small@[0-9a-f]{12}', loaded.model_id)
    assert (loaded.info, loaded.policy, loaded.dim) == (INFO, network.policy, saved.dim)
    images = torch.from_numpy(random_images(2, 64, 96))
    assert torch.allclose(loaded.network(images), network(images), atol=1e-5)
    assert loaded.network(images).shape == (2, loaded.dim)


def test_a_projection_of_local_features_comes_back_with_its_bundle(tmp_path):
    torch.manual_seed(1)
    projection = LocalProjection(48, 5)
    projection.weight.data.normal_()
    network = small_network(pooling=NetVLAD(4, 5), whiten=False, projection=projection)
    saved = save_bundle(tmp_path / 'a.safetensors', network, INFO)
    loaded = load_bundle(tmp_path / 'a.safetensors')
    images = torch.from_numpy(random_images(2, 64, 96))
    assert torch.allclose(loaded.network(images), network(images), atol=1e-5)
    assert (loaded.model_id, loaded.dim) == (saved.model_id, 20)
    projection.bias.data[0] += 1e-3
    assert make_bundle(network, INFO).model_id != saved.model_id


def test_a_bundle_holds_what_the_format_promises(tmp_path):
    save_bundle(tmp_path / 'a.safetensors', small_network(), INFO)
    with safe_open(tmp_path / 'a.safetensors', 'pt') as stored:
        values = {key: json.loads(text) for key, text in stored.metadata().items()}
        groups = {key.split('.')[0] for key in stored.keys()}  # noqa: SIM118
    assert groups == {'backbone', 'pooling', 'whitening'}
    assert values['backbone'] == 'mobilenet_v3_small_s16'
    assert values['pooling'] == {'kind': 'netvlad', 'version': 'v1'}
    assert (values['format_version'], values['clusters'], values['dim']) == (1, 4, 8)
    assert values['input']['colour_order'] == 'bgr'


def test_the_model_id_follows_tensors_and_preprocessing_and_nothing_else(tmp_path):
    first = make_bundle(small_network(), INFO).model_id
    assert make_bundle(small_network(), replace(INFO, licence='other')).model_id == first
    network = small_network()
    network.pooling.centres.data[0, 0] += 1e-6
    assert make_bundle(network, INFO).model_id != first
    network = small_network()
    network.policy = replace(network.policy, height=65)
    assert make_bundle(network, INFO).model_id != first
    with pytest.raises(ModelError, match=r"'\.\./x'"):
        make_bundle(network, replace(INFO, name='../x'))


def test_rootsift_has_no_tensors_but_is_a_bundle(tmp_path):
    layer = VLAD(2, 128)
    layer.init_from_clusters(torch.eye(2, 128), torch.eye(2, 128))
    network = DescriptorNetwork(InputPolicy(resize='none'), RootSift(), layer)
    save_bundle(tmp_path / 's.safetensors', network, INFO)
    assert load_bundle(tmp_path / 's.safetensors').dim == 256


def test_damaged_bundles_are_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_bundle(path, small_network(), INFO)
    whole = path.read_bytes()
    with safe_open(path, 'pt') as stored:
        metadata = stored.metadata()
        tensors = {key: stored.get_tensor(key).clone() for key in stored.keys()}  # noqa: SIM118
    for data in (whole[:-10], whole[:100], b''):
        path.write_bytes(data)
        with pytest.raises(ModelError, match='cannot read'):
            load_bundle(path)
    save_file(tensors, path)
    with pytest.raises(ModelError, match='models import'):
        load_bundle(path)
    save_file(tensors, path, {**metadata, 'format_version': '9'})
    with pytest.raises(ModelError, match=r'9.*update'):
        load_bundle(path)
    save_file(tensors, path, {**metadata, 'backbone': '"vgg99"'})
    with pytest.raises(ModelError, match=r"'vgg99'.*vgg16"):
        load_bundle(path)
    save_file({k: v for k, v in tensors.items() if 'centres' not in k}, path, metadata)
    with pytest.raises(ModelError, match=r'pooling\.centres'):
        load_bundle(path)
    policy = json.loads(metadata['input'])
    for key, value, message in (
        ('name', 3, 'name is 3'), ('training', [1], r'training is \[1\]'),
        ('pooling', 'x', "pooling is 'x'"), ('clusters', -1, 'negative dimension'),
        ('recommended_min_similarity', 'x', "recommended_min_similarity is 'x'"),
        ('input', None, 'input is None'), ('input', {**policy, 'height': 'x'}, 'no pixels'),
        ('input', {**policy, 'value_range': None}, "not valid: '>' not supported"),
        ('pooling', {'kind': 'max', 'grid_hw': 3}, 'non-iterable int'),
    ):  # fmt: skip
        save_file(tensors, path, {**metadata, key: json.dumps(value)})
        with pytest.raises(ModelError, match=message):
            load_bundle(path)
    for shape in ((8,), (8, 5), ()):
        save_file({**tensors, 'whitening.weight': torch.zeros(shape)}, path, metadata)
        with pytest.raises(ModelError, match=r'whitening has weight and bias of .* for 192'):
            load_bundle(path)


# ---------------------------------------------------------------- names


def test_names_are_found_in_the_own_folder_and_the_cache(tmp_path):
    cached = tmp_path / 'cache' / 'netvlad_ros' / 'models' / 'small.safetensors'
    save_bundle(cached, small_network(), INFO)
    assert find_model('small') == cached
    own = tmp_path / 'own' / 'small.safetensors'
    save_bundle(own, small_network(), INFO)
    assert find_model('small') == own
    assert find_model(str(cached)) == cached
    with pytest.raises(ModelError, match='models get vgg16_sfrs'):
        find_model('vgg16_sfrs')
    with pytest.raises(ModelError, match=r"'nothing'.*small, .*vgg16_sfrs"):
        find_model('nothing')
    with pytest.raises(ModelError, match='does not exist'):
        find_model(str(tmp_path / 'missing.safetensors'))


def test_the_shipped_registry_is_valid():
    from netvlad_ros.descriptor.locate import share_folder

    registry = read_registry(share_folder())
    for entry in registry.models.values():
        assert entry.licence
        assert entry.description
        assert not entry.url or entry.url.startswith('https://')
    assert not registry.default or registry.default in registry.models


# ---------------------------------------------------------------- downloads


def command(*words):
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    return models.run(parser.parse_args([str(word) for word in words]))


def registry_file(tmp_path, **values):
    lines = '\n'.join(f'    {key}: {value}' for key, value in values.items())
    path = tmp_path / 'registry.yaml'
    path.write_text(f'default:\nmodels:\n  small:\n{lines}\n')
    return path


def test_get_works_from_a_file_and_verifies(tmp_path):
    source = tmp_path / 'source.safetensors'
    saved = save_bundle(source, small_network(), INFO)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    size = source.stat().st_size
    bad = registry_file(tmp_path, url=source.as_uri(), sha256=f"'{'0' * 64}'")
    with pytest.raises(ModelError, match=digest):
        command('get', 'small', '--registry', bad)
    bad = registry_file(tmp_path, url=source.as_uri(), size_bytes=7)
    with pytest.raises(ModelError, match=f'{size} bytes, expected 7'):
        command('get', 'small', '--registry', bad)
    good = registry_file(tmp_path, url=source.as_uri(), sha256=digest, size_bytes=size)
    assert command('get', 'small', '--registry', good)['model_id'] == saved.model_id
    source.unlink()  # the second time nothing is fetched
    assert command('get', 'small', '--registry', good)['model_id'] == saved.model_id
    names = [row['name'] for row in command('list')['models'] if row['path']]
    assert 'small' in names


def test_get_leaves_no_half_bundle(tmp_path, monkeypatch):
    source = tmp_path / 'source.safetensors'
    saved = save_bundle(source, small_network(), INFO)
    registry = registry_file(tmp_path, url=source.as_uri())

    def full(path, data):
        with path.open('wb') as stream:
            stream.write(data[:100])
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr(shutil, 'copyfile', lambda a, b: full(b, a.read_bytes()))
        patched.setattr(Path, 'write_bytes', full)
        with pytest.raises(ModelError, match=r'cannot write model .*small.*No space left'):
            command('get', 'small', '--registry', registry)
    assert not list((cache_folder() / 'models').iterdir())
    assert command('get', 'small', '--registry', registry)['model_id'] == saved.model_id


def test_a_download_that_does_not_convert_is_fetched_again(tmp_path):
    source = tmp_path / 'anew.pth'
    source.write_text('<!DOCTYPE html><html>Not Found</html>')
    path = registry_file(tmp_path, url=source.as_uri())
    with pytest.raises(ModelError, match='no torch checkpoint'):
        command('get', 'small', '--registry', path)
    source.write_bytes(b'another answer')
    with pytest.raises(ModelError, match=r'anew\.pth'):
        command('get', 'small', '--registry', path, '--keep')
    assert not list((cache_folder() / 'downloads').glob('anew.pth*'))


def test_get_says_which_names_there_are(tmp_path):
    path = registry_file(tmp_path, url='ftp://host/small.safetensors')
    with pytest.raises(ModelError, match=r"'other'.*small"):
        command('get', 'other', '--registry', path)
    with pytest.raises(ModelError, match=r'ftp.*https, http, file'):
        command('get', 'small', '--registry', path)
    path.write_text('models: {small: {url: x, sha256: 12}}')
    with pytest.raises(ModelError, match=r'sha256.*12'):
        command('get', 'small', '--registry', path)
    path.write_text('models: [1, 2]')
    with pytest.raises(ModelError, match='cannot read model registry'):
        command('get', 'small', '--registry', path)


class RangeHandler(BaseHTTPRequestHandler):
    """Serves ``content``; the first answer breaks off in the middle."""

    content = bytes(range(256)) * 4000
    ranges: list[str | None]

    def do_GET(self):
        """Answer with what the Range header leaves."""
        asked = self.headers.get('Range')
        self.ranges.append(asked)
        start = int(asked[6:-1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header('Content-Length', str(len(self.content) - start))
        self.end_headers()
        cut = len(self.content) // 2 if len(self.ranges) == 1 else len(self.content)
        self.wfile.write(self.content[start:cut])

    def log_message(self, *args):
        """Keep the test's output clean."""


def test_an_interrupted_download_resumes(tmp_path):
    RangeHandler.ranges = []
    server = ThreadingHTTPServer(('127.0.0.1', 0), RangeHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        entry = RegistryEntry(
            'big',
            f'http://127.0.0.1:{server.server_port}/big.pth',
            size_bytes=len(RangeHandler.content),
            sha256=hashlib.sha256(RangeHandler.content).hexdigest(),
        )
        target = tmp_path / 'big.pth'
        with pytest.raises(ModelError, match='again to resume'):
            download(entry, target)
        assert not target.exists()
        download(entry, target)
    finally:
        server.shutdown()
        server.server_close()
    assert target.read_bytes() == RangeHandler.content
    assert RangeHandler.ranges == [None, f'bytes={len(RangeHandler.content) // 2}-']
