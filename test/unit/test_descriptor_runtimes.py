# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The engines agree with float64, and the choice between them is safe and remembered."""

import argparse
from dataclasses import replace
import json
import os
import time

import cv2
import numpy as np
import pytest
import torch

from netvlad_ros.cli import describe, models
from netvlad_ros.config import DescriptorConfig
from netvlad_ros.descriptor import (
    BundleInfo,
    Descriptor,
    load_descriptor,
    make_bundle,
    save_bundle,
)
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.bundle import load_bundle
from netvlad_ros.descriptor.locate import find_model
from netvlad_ros.descriptor.netvlad import NetVLAD
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.runtimes import onnx_export, selection
from netvlad_ros.descriptor.runtimes.prepared import random_images
from netvlad_ros.descriptor.runtimes.torch_runtime import TorchRuntime
from netvlad_ros.errors import ConfigError, InputError, ModelError

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """Share the exported graphs among the tests, away from the user's own."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder / 'netvlad_ros'


def network_of(backbone_name, resize='fixed'):
    """Return a random network whose features are spread and whose assignment is not uniform."""
    torch.manual_seed(0)
    backbone = make_backbone(backbone_name)
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    policy = InputPolicy(resize=resize, height=HEIGHT, width=WIDTH)
    pooling = NetVLAD(8, backbone.channels)
    pooling.assignment.data *= 10.0
    return DescriptorNetwork(policy, backbone, pooling)


@pytest.fixture(scope='module')
def bundle(cache):
    return make_bundle(network_of('resnet18_layer3'), BundleInfo('small'))


@pytest.fixture(scope='module')
def expected(bundle):
    """Return images and their descriptors in float64."""
    images = random_images(2, HEIGHT, WIDTH)
    with torch.inference_mode():
        return images, network_of('resnet18_layer3').eval().double()(
            torch.from_numpy(images)
        ).numpy()


@pytest.mark.parametrize('runtime', ['torch', 'onnx', 'openvino', 'auto'])
def test_each_engine_computes_the_descriptor(bundle, expected, runtime):
    if runtime in ('onnx', 'openvino'):
        pytest.importorskip('onnxruntime' if runtime == 'onnx' else runtime)
    images, rows = expected
    descriptor = Descriptor(bundle, DescriptorConfig(runtime=runtime, device='cpu'))
    actual = descriptor.compute(images)
    assert actual.dtype == np.float32
    assert np.linalg.norm(actual - rows, axis=1).max() <= 1e-5
    described = descriptor.describe()
    assert described['model_id'] == bundle.model_id
    assert described['device'] == 'cpu'
    assert runtime in ('auto', described['runtime'].split('-')[0])


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
@pytest.mark.parametrize('backbone', ['vgg16', 'resnet18_layer3'])
def test_half_precision_is_near(precision, backbone):
    network = network_of(backbone)
    images = random_images(2, HEIGHT, WIDTH)
    exact = TorchRuntime(network, 'cpu', 'fp32', True)(images)
    half = TorchRuntime(network, 'cpu', precision, True)(images)
    assert half.dtype == np.float32
    assert (half * exact).sum(axis=1).min() >= 0.9995


ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=ON_CUDA)])
@pytest.mark.parametrize(
    ('precision', 'limit'), [('fp32', 0.999999), ('bf16', 0.9995), ('fp16', 0.9995)]
)
def test_the_shipped_model_agrees_on_real_pictures(shared_data, device, precision, limit):
    paths = sorted((shared_data / 'sequences' / 'rtabmap_two_laps').rglob('*.jpg'))[::40]
    images = np.stack([cv2.resize(cv2.imread(str(path)), (320, 240)) for path in paths])
    network = load_bundle(find_model(DescriptorConfig().model)).network
    exact = TorchRuntime(network, 'cpu', 'fp32', True)(images)
    actual = TorchRuntime(network, device, precision, True)(images)
    assert (actual * exact).sum(axis=1).min() >= limit


@ON_CUDA
@pytest.mark.parametrize(('precision', 'limit'), [('fp32', 0.99999), ('bf16', 0.9995)])
def test_cuda_computes_the_descriptor(bundle, expected, precision, limit):
    images, rows = expected
    config = DescriptorConfig(device='cuda', precision=precision)
    actual = Descriptor(bundle, config).compute(images)
    assert (actual * rows).sum(axis=1).min() >= limit


def test_images_of_several_sizes_keep_their_order():
    bundle = make_bundle(network_of('alexnet', 'none'), BundleInfo('any'))
    descriptor = Descriptor(bundle, DescriptorConfig(runtime='torch'))
    sizes = ((90, 80), (96, 128), (90, 80), (64, 96), (96, 128))
    images = [random_images(1, *size, seed=i)[0] for i, size in enumerate(sizes)]
    together = descriptor.compute(images)
    alone = np.concatenate([descriptor.compute([image]) for image in images])
    assert np.allclose(together, alone, atol=1e-5)
    assert descriptor.compute([]).shape == (0, descriptor.dim)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    ],
)
def test_what_is_no_image_is_refused(bundle, image):
    descriptor = Descriptor(bundle, DescriptorConfig(runtime='torch'))
    with pytest.raises(InputError, match=r'expected \(H, W, 3\) uint8'):
        descriptor.compute([image])


def test_a_black_image_has_a_finite_unit_descriptor(bundle):
    descriptor = Descriptor(bundle, DescriptorConfig(runtime='torch', precision='fp16'))
    row = descriptor.compute([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-5)


class Engine:
    """A runtime that returns fixed rows after a pause."""

    device, precision = 'cpu', 'fp32'

    def __init__(self, name, rows, pause_s):
        self.name, self.rows, self.pause_s = name, rows, pause_s

    def __call__(self, images):
        """Return the rows."""
        time.sleep(self.pause_s)
        return self.rows


def test_auto_takes_the_fastest_that_agrees_with_torch(bundle):
    right = TorchRuntime(bundle.network, 'cpu', 'fp32', False)(random_images(1, HEIGHT, WIDTH))
    wrong = np.roll(right, 1, axis=1)

    def broken():
        raise RuntimeError('no such device')

    factories = {
        'slow': lambda: Engine('slow', right, 0.02),
        'fast': lambda: Engine('fast', right, 0.005),
        'wrong': lambda: Engine('wrong', wrong, 0.0),
        'nan': lambda: Engine('nan', right * np.nan, 0.0),
        'broken': broken,
    }
    assert selection.fastest(bundle, factories, 'cpu', 'fp32').name == 'fast'
    del factories['slow'], factories['fast']
    with pytest.raises(ConfigError, match='no runtime'):
        selection.fastest(bundle, factories, 'cpu', 'fp32')


def test_the_choice_is_remembered(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    measured = []

    def engine(name):
        return lambda: Engine(name, np.zeros((1, 1)), 0)

    def fastest(bundle, factories, device, precision):
        measured.append(sorted(factories))
        return factories['b']()

    monkeypatch.setattr(selection, 'candidates', lambda *_: {'a': engine('a'), 'b': engine('b')})
    monkeypatch.setattr(selection, 'fastest', fastest)
    config = DescriptorConfig(device='cpu')
    for _ in range(2):
        assert selection.make_runtime(bundle, config).name == 'b'
    assert measured == [['a', 'b']]
    selection.make_runtime(bundle, replace(config, threads=torch.get_num_threads() + 1))
    assert len(measured) == 2  # another number of threads is another question
    torch.set_num_threads(torch.get_num_threads() - 1)
    (tmp_path / 'netvlad_ros' / 'runtimes.json').write_text('{damaged')
    assert selection.make_runtime(bundle, config).name == 'b'
    assert len(measured) == 3


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'device': 'tpu'}, r"'tpu'.*cuda:N"),
        ({'device': 'cuda:99'}, 'torch sees'),
        ({'device': 'cpu', 'runtime': 'tensorrt'}, "'tensorrt'"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(bundle, values, words):
    with pytest.raises(ConfigError, match=words):
        Descriptor(bundle, DescriptorConfig(**values))


def command(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(word) for word in words]))


def test_export_reports_parity_and_can_be_dynamic(cache, tmp_path, capsys):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = tmp_path / 'any.safetensors'
    bundle = save_bundle(path, network_of('alexnet', 'none'), BundleInfo('any'))
    output = tmp_path / 'any.onnx'
    summary = command(models, 'export', path, '--output', output, '--dynamic')
    assert summary['parity']['onnxruntime']['max_l2'] <= 1e-5
    assert 'agrees' in capsys.readouterr().out
    assert json.loads(json.dumps(summary)) == summary
    session = onnxruntime.InferenceSession(str(output), providers=['CPUExecutionProvider'])
    images = random_images(3, 64, 80)
    rows = session.run(None, {'images': images})[0]
    expected = TorchRuntime(bundle.network, 'cpu', 'fp32', False)(images)
    assert np.linalg.norm(rows - expected, axis=1).max() <= 1e-5
    with pytest.raises(ModelError, match='cannot write'):
        command(models, 'export', path, '--output', '/proc/x.onnx', '--size', '64x80')


def test_describe_writes_descriptors_and_paths(cache, tmp_path):
    import cv2

    model = tmp_path / 'm.safetensors'
    save_bundle(model, network_of('alexnet'), BundleInfo('m'))
    (tmp_path / 'images').mkdir()
    pictures = random_images(3, 64, 80)
    for name, picture in zip('bca', pictures, strict=True):
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.png'), picture[..., ::-1])
    output = tmp_path / 'out.npz'
    options = ('--model', model, '--output', output, '--runtime', 'torch')
    summary = command(describe, tmp_path / 'images', *options)
    with np.load(output, allow_pickle=False) as stored:
        assert [p[-5:] for p in stored['paths']] == ['a.png', 'b.png', 'c.png']
        rows = stored['descriptors']
    assert rows.shape == (3, summary['dim'])
    config = DescriptorConfig(model=str(model), runtime='torch')
    expected = load_descriptor(config).compute(pictures)
    assert np.allclose(rows, expected[[2, 0, 1]], atol=1e-5)
    (tmp_path / 'images' / 'd.png').write_bytes(b'no image')
    summary = command(describe, tmp_path / 'images', *options)
    assert (summary['images'], summary['left_out']) == (3, 1)
    with np.load(output, allow_pickle=False) as stored:
        assert len(stored['paths']) == 3
        np.testing.assert_array_equal(stored['descriptors'], rows)
    with pytest.raises(InputError, match=r"none of 1 images can be read.*d\.png' is damaged"):
        command(describe, tmp_path / 'images' / 'd.png', *options)
    with pytest.raises(InputError, match='does not exist'):
        command(describe, tmp_path / 'nothing', *options)


@pytest.mark.parametrize('runtime', ['onnx', 'openvino'])
@pytest.mark.parametrize('size', [0, 20_000])
def test_a_graph_that_a_power_cut_left_short_is_exported_again(bundle, cache, runtime, size):
    pytest.importorskip('onnxruntime' if runtime == 'onnx' else runtime)
    config = DescriptorConfig(runtime=runtime, device='cpu')
    images = random_images(1, HEIGHT, WIDTH)
    before = Descriptor(bundle, config).compute(images)
    [graph] = (cache / 'onnx').glob(f'{bundle.model_id}_fp32_1x*')
    whole = graph.stat().st_size
    os.truncate(graph, size)
    os.utime(graph, (1, 1))
    np.testing.assert_array_equal(Descriptor(bundle, config).compute(images), before)
    assert graph.stat().st_size == whole
    assert not list(graph.parent.glob('*.partial'))


def test_a_cache_that_cannot_be_written_costs_one_export(bundle, tmp_path, monkeypatch, caplog):
    pytest.importorskip('onnxruntime')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    first, second = (onnx_export.cached_onnx(bundle, 'fp32', 1) for _ in range(2))
    assert first == second and first.is_file()
    assert caplog.text.count('XDG_CACHE_HOME names another folder') == 1


def test_weights_that_are_not_finite_are_refused():
    network = network_of('alexnet', 'none')
    next(network.backbone.parameters()).data[0] = np.nan
    with pytest.raises(ModelError, match='are not finite'):
        make_bundle(network, BundleInfo('broken'))
