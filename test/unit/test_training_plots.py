# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Curves of several runs in one figure, and the alpha sweep."""

import json
import math
from pathlib import Path
import sys

import cv2
from matplotlib.figure import Figure
import numpy as np
import pytest
import torch

from netvlad_ros.cli.main import main
from netvlad_ros.cli.test import _sharper
from netvlad_ros.descriptor import BundleInfo, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import make_pooling
from netvlad_ros.descriptor.preprocess import InputPolicy

sys.path.insert(0, str(Path(__file__).parent))
from test_training_ports import write_places


def network(kind: str) -> DescriptorNetwork:
    torch.manual_seed(0)
    backbone = make_backbone('mobilenet_v3_small_s16')
    pooling = make_pooling({'kind': kind}, 4, backbone.channels)
    return DescriptorNetwork(InputPolicy(height=64, width=96), backbone, pooling).eval()


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Return the list of the figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def spy(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', spy)
    return saved


@pytest.mark.slow
def test_the_figure_tells_poolings_and_training_apart(tmp_path, capsys, figures):
    table, models = write_places(tmp_path / 'places'), []
    runs = {
        'netvlad': 'cluster', 'trained': 'modern', 'vlad': 'cluster', 'max': 'cluster',
        'average': 'cluster', 'none': 'cluster',
    }  # fmt: skip
    for name, recipe in runs.items():
        kind = 'netvlad' if name == 'trained' else name
        models.append(tmp_path / f'{name}.safetensors')
        save_bundle(models[-1], network(kind), BundleInfo(name, training={'recipe': recipe}))
    plot = tmp_path / 'plots/recall.png'
    command = ['test', str(table), '--split', 'train', '--plot', str(plot), '--json']
    assert main([*command, '--model', *map(str, models)]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])['results']
    assert min(cv2.imread(str(plot)).shape[:2]) > 500
    lines = figures[0].axes[0].get_lines()
    assert [line.get_label() for line in lines] == [
        f'{name} ({"off the shelf" if recipe == "cluster" else "trained"})'
        for name, recipe in runs.items()
    ]
    for line, result in zip(lines, results.values(), strict=True):
        values = [100 * result['recall_at'][str(int(n))] for n in line.get_xdata()]
        np.testing.assert_allclose(line.get_ydata(), values)
    assert [line.get_linestyle() for line in lines] == ['--', '-', '--', '--', '--', '--']
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1] and len(set(colours)) == 5
    assert len(figures[0].legends[0].get_texts()) == len(runs)


@pytest.mark.slow
def test_the_alpha_sweep_names_each_factor(tmp_path, capsys, figures):
    table, model = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    save_bundle(model, network('netvlad'), BundleInfo('start'))
    command = f"""test {table} --split train --model {model} --alpha-sweep 0.1 10
        --plot {tmp_path / 'sweep.png'} --json"""
    assert main(command.split()) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])['results']
    assert list(results) == ['start', 'start alpha x0.1', 'start alpha x10']
    colours = [tuple(line.get_color()) for line in figures[0].axes[0].get_lines()]
    assert len(set(colours)) == 3
    save_bundle(model, network('max'), BundleInfo('start'))
    assert main(command.split()) == 1
    assert 'needs NetVLAD' in capsys.readouterr().err


def test_a_factor_multiplies_the_log_ratio_of_the_assignments():
    layer = network('netvlad')
    features = torch.nn.functional.normalize(torch.randn(1, layer.backbone.channels, 3, 4), dim=1)
    ratios = []
    for factor in (1.0, 3.0):
        pooling = _sharper(layer, factor).pooling
        logits = pooling.assignment @ features.flatten(2)[0]
        two = logits.softmax(dim=0).topk(2, dim=0).values
        ratios.append(math.log(float((two[0, 0] / two[1, 0]).detach())))
    assert ratios[1] == pytest.approx(3 * ratios[0], rel=1e-4)


def test_a_bad_name_is_refused_before_training(tmp_path, capsys):
    command = ['train', str(tmp_path / 'none'), '--name', 'my model', '--output', str(tmp_path)]
    for recipe in ('modern', 'relja'):
        assert main([*command, '--recipe', recipe]) == 1
        assert "model name is 'my model'" in capsys.readouterr().err
