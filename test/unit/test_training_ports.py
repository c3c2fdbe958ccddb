# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes nanne and benchmark against the ports' own formulas, and from the command line."""

from dataclasses import replace
import json
from pathlib import Path
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from netvlad_ros.cli.main import main
from netvlad_ros.descriptor import BundleInfo, load_bundle, save_bundle
from netvlad_ros.descriptor.backbones import make_backbone
from netvlad_ros.descriptor.network import DescriptorNetwork
from netvlad_ros.descriptor.poolings import AveragePooling
from netvlad_ros.descriptor.preprocess import InputPolicy
from netvlad_ros.descriptor.whitening import whitening_from
from netvlad_ros.training.settings import TRIPLET_RECIPES, TripletConfig
from netvlad_ros.training.triplet import TripletData, TripletTrainer

sys.path.insert(0, str(Path(__file__).parent))
from test_training_triplet import Linear, make_data

# Only sizes are made small; what the recipes differ in stays as it is.
SMALL = {'epochs': 2, 'cache_queries': 8, 'sampled': 12, 'negatives': 4}


def port(data: TripletData, recipe: str, config: TripletConfig) -> tuple[list[float], nn.Module]:
    """Train as the ports' loops do: torch's own triplet loss and optimisers, lists and sorts.

    nanne: pytorch-NetVlad main.py and pittsburgh.py. benchmark: train.py and datasets_ws.py of
    deep-visual-geo-localization-benchmark, mining 'full'.
    """
    network = Linear()
    if recipe == 'nanne':
        criterion = nn.TripletMarginLoss(margin=0.1**0.5, p=2, reduction='sum')
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-3)
    else:
        criterion = nn.TripletMarginLoss(margin=0.1, p=2, reduction='sum')
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-5)
    places, asks = data.dataset.database.xy_m, data.dataset.queries.xy_m
    metres = np.sqrt(((asks[:, None] - places[None]) ** 2).sum(axis=2))
    positives = [np.flatnonzero(row <= 10.0) for row in metres]
    trainable = np.array([q for q, row in enumerate(positives) if len(row)])
    losses: list[float] = []
    memory: dict[int, list[int]] = {}
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, 1, epoch]).permutation(trainable)
        for first in range(0, len(order), config.cache_queries):
            with torch.no_grad():
                cached_d, cached_q = (
                    network(torch.from_numpy(images.images)).half().float().numpy()
                    for images in (data.database, data.queries)
                )
            part = order[first : first + config.cache_queries]
            for start in range(0, len(part), 4):
                loss, count = torch.zeros((), dtype=torch.float64), 0
                for q in part[start : start + 4].tolist():
                    away = {d: np.linalg.norm(cached_q[q] - row) for d, row in enumerate(cached_d)}
                    best = min(positives[q].tolist(), key=away.__getitem__)
                    rng = np.random.default_rng([config.seed, 2, epoch, q])
                    sampled = rng.permutation(np.flatnonzero(metres[q] > 25.0))[: config.sampled]
                    pool = {*sampled.tolist(), *memory.get(q, [])}
                    hard = sorted(pool, key=away.__getitem__)
                    if recipe == 'nanne':
                        hard = [d for d in hard if away[d] < away[best] + 0.1**0.5]
                    hard = hard[: config.negatives]
                    if not hard:
                        continue
                    memory[q] = hard
                    rows = network(torch.from_numpy(np.stack(
                        [data.queries.images[q], *data.database.images[[best, *hard]]]
                    )))  # fmt: skip
                    for negative in rows[2:]:
                        loss = loss + criterion(rows[:1], rows[1:2], negative[None])
                        count += 1
                if count:
                    optimiser.zero_grad()
                    (loss / count).backward()
                    optimiser.step()
                    losses.append(float(loss.detach()) / count)
    return losses, network


@pytest.mark.parametrize('recipe', ['nanne', 'benchmark'])
def test_losses_and_weights_equal_those_of_the_port(tmp_path, recipe):
    data, config = make_data(), replace(TRIPLET_RECIPES[recipe], **SMALL)
    trainer = TripletTrainer(Linear(), data, None, config, tmp_path)
    losses = trainer.run()
    expected, network = port(data, recipe, config)
    assert len(losses) == len(expected) >= 10 and min(expected) > 0
    np.testing.assert_allclose(losses, expected, atol=1e-5, rtol=0)
    moved = network.weight.detach() - Linear().weight.detach()
    ours = trainer.network.weight.detach() - Linear().weight.detach()
    assert float(moved.abs().max()) > 1e-5
    torch.testing.assert_close(ours, moved, atol=1e-6, rtol=1e-2)


def test_the_recipes_are_those_of_the_ports():
    nanne, benchmark = TRIPLET_RECIPES['nanne'], TRIPLET_RECIPES['benchmark']
    assert (nanne.epochs, nanne.patience, nanne.halve_every) == (30, 10, 5)
    assert (nanne.sampled, nanne.negatives, nanne.tuples, nanne.cache_queries) == (
        1000, 10, 4, 1000,
    )  # fmt: skip
    assert (benchmark.epochs, benchmark.patience, benchmark.halve_every) == (1000, 3, 0)
    assert (benchmark.queries, benchmark.cache_queries, benchmark.negatives) == (5000, 1000, 10)


def write_places(folder: Path, places: int = 6) -> Path:
    """Write places 30 m apart as a table, each of 3 images that train and 2 held-out ones."""
    folder.mkdir()
    rows = ['path,east_m,north_m,split,role']
    rng = np.random.default_rng(0)
    for place in range(places):
        look = cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (96, 64))
        for n in range(5):
            noisy = look + rng.normal(0, 40, look.shape)
            cv2.imwrite(str(folder / f'{place}{n}.jpg'), noisy.clip(0, 255).astype(np.uint8))
            role = 'query' if n in (2, 4) else 'database'
            split = 'train' if n < 3 else 'val'
            rows.append(f'{place}{n}.jpg,{30 * place},{2 * n},{split},{role}')
    table = folder / 'images.csv'
    table.write_text('\n'.join(rows) + '\n')
    return table


def write_start(path: Path) -> DescriptorNetwork:
    """Write the bundle that training starts from."""
    torch.manual_seed(0)
    network = DescriptorNetwork(
        InputPolicy(height=64, width=96), make_backbone('mobilenet_v3_small_s16'),
        AveragePooling(), whitening_from(torch.randn(16, 48) / 7, torch.zeros(16)),
    )  # fmt: skip
    save_bundle(path, network, BundleInfo('start'))
    return network


@pytest.mark.parametrize('recipe', ['nanne', 'benchmark'])
def test_the_recipes_run_from_the_command_line(tmp_path, capsys, recipe):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    network = write_start(start)
    command = f"""train {table} --recipe {recipe} --model {start} --output {tmp_path / 'run'}
        --epochs 2 --json"""
    assert main(command.split()) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result['batches'] > 0 and set(result['after']) == {'1', '5', '10'}
    trained = load_bundle(tmp_path / 'run/model.safetensors')
    training = trained.info.training
    assert training['recipe'] == recipe and training['config']['squared'] is False
    assert training['config']['optimiser'] == ('adam' if recipe == 'benchmark' else 'sgd')
    assert training['config']['margin'] == TRIPLET_RECIPES[recipe].margin
    before, after = (net.whitening.weight for net in (network, trained.network))
    assert 0 < float((before - after).detach().abs().max()) < 0.1


@pytest.mark.parametrize('recipe', ['relja', 'modern'])
def test_a_held_out_part_that_trains_is_refused(tmp_path, capsys, recipe):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    write_start(start)
    rows = [line.split(',') for line in table.read_text().splitlines()]
    unsplit = tmp_path / 'places/unsplit.csv'
    unsplit.write_text(''.join(','.join([*row[:3], row[4]]) + '\n' for row in rows))
    # Of the 12 held-out images one is a training image under another path.
    (tmp_path / 'again').symlink_to(tmp_path / 'places')
    partly = tmp_path / 'places/partly.csv'
    partly.write_text(table.read_text().replace('\n03.jpg', '\n../again/00.jpg'))
    for data, shared in (
        (f'{unsplit}', '30 images that also train (of 30)'),
        (f'{table} --val {table} --val-split train', '18 images that also train (of 18)'),
        (f'{table} --val {partly}', "1 images that also train (of 12), such as '"),
    ):
        command = f"""train {data} --recipe {recipe} --model {start} --output {tmp_path / 'run'}
            --{'steps' if recipe == 'modern' else 'epochs'} 1"""
        assert main(command.split()) == 1
        error = capsys.readouterr().err
        assert shared in error
        assert "others with --val FILE, or --val-split ''" in error
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('recipe', ['relja', 'modern'])
def test_a_dataset_without_a_val_split_says_what_to_do(tmp_path, capsys, recipe):
    write_start(tmp_path / 'start.safetensors')
    write_places(tmp_path / 'places')
    for side, n, east_m in (('database', 0, 0), ('database', 1, 99), ('queries', 2, 1)):
        folder = tmp_path / 'utm/train' / side
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / f'places/0{n}.jpg').rename(folder / f'@{east_m}@0@.jpg')
    command = f"""train {tmp_path / 'utm'} --recipe {recipe} --output {tmp_path / 'run'}
        --model {tmp_path / 'start.safetensors'}"""
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert 'has no folder val/database' in error and "--val FILE, or --val-split ''" in error


@pytest.mark.parametrize('split', ['val', 'test'])
def test_models_learn_from_no_val_or_test_set(tmp_path, capsys, split):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    write_start(start)
    table.write_text(table.read_text().replace('train', split))
    for command in (
        'train --recipe relja --epochs 1', 'train --recipe modern --steps 1', 'cluster',
        'whiten --dim 4',
    ):  # fmt: skip
        name, *options = command.split()
        words = [name, str(table), *options, '--model', str(start), '--split', split]
        words += ['--output', str(tmp_path / 'out')]
        assert main([*words, '--val-split='] if name == 'train' else words) == 1, command
        assert f'places is a {split} set' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert main(['test', str(table), '--model', str(start), '--split', split]) == 0


def test_the_paper_trains_without_whitening(tmp_path, capsys):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    write_start(start)
    command = f"""train {table} --recipe relja --model {start} --output {tmp_path / 'run'}
        --epochs 1"""
    assert main(command.split()) == 0
    assert "the start's whitening is left out" in capsys.readouterr().out
    trained = load_bundle(tmp_path / 'run/model.safetensors')
    assert trained.network.whitening is None and trained.dim == 48
    assert trained.info.training['start'] == load_bundle(start).model_id


def test_a_run_continues_only_as_it_was(tmp_path, capsys):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    other = tmp_path / 'other.safetensors'
    save_bundle(other, write_start(start), BundleInfo('other'))
    table.write_text(table.read_text().replace(',val,', ',more,'))
    common = f'train {table} --model {start} --output {tmp_path / "run"} --val-split='
    assert main([*common.split(), '--recipe', 'relja', '--epochs', '1']) == 0
    for options, named in (
        ('--recipe modern --steps 1', "recipe 'relja', now it is 'modern'"),
        ('--recipe nanne --epochs 1', "recipe 'relja', now it is 'nanne'"),
        ('--recipe relja --epochs 1 --margin 0.2', 'config.margin 0.1, now it is 0.2'),
        ('--recipe relja --epochs 1 --train-layers features.8', 'train_layers None, now it is ['),
        (f'--recipe relja --epochs 1 --model {other}', "start '"),
        (f'--recipe relja --epochs 1 --val-split more --val {table}', 'held_out_hash None'),
        ('--recipe relja --epochs 1 --split more', 'data_hash'),
    ):
        capsys.readouterr()
        assert main([*common.split(), '--resume', *options.split()]) == 1
        assert named in capsys.readouterr().err
    assert main([*common.split(), '--resume', '--recipe', 'relja', '--epochs', '2']) == 0
    log = (tmp_path / 'run/log.jsonl').read_text().splitlines()
    assert [json.loads(line)['epoch'] for line in log] == [1, 2]
    capsys.readouterr()
    assert main([*common.split(), '--resume', '--recipe', 'relja', '--epochs', '1']) == 1
    assert 'config.epochs 2, now it is 1' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ('--recipe modern --margin 0.2', '--margin is of the triplet recipes'),
        ('--recipe modern --frozen-cache', '--frozen-cache is of the triplet recipes'),
        ('--recipe relja --steps 3', '--steps is of recipe modern'),
        ('--recipe relja --augment-turn-deg 3', '--augment-turn-deg is of recipe modern'),
        ('--recipe relja --also x', '--also is of recipe modern'),
    ],
)
def test_options_that_would_not_act_are_refused(tmp_path, capsys, options, named):
    command = f'train places.csv --output {tmp_path / "run"} {options}'
    assert main(command.split()) == 1
    assert named in capsys.readouterr().err


def test_a_modern_run_does_not_continue_as_another_recipe(tmp_path, capsys):
    table, start = write_places(tmp_path / 'places'), tmp_path / 'start.safetensors'
    write_start(start)
    common = f'train {table} --model {start} --output {tmp_path / "run"} --val-split='
    modern = f'{common} --recipe modern --steps 2 --places 3 --per-place 2 --views 1'
    assert main(modern.split()) == 0
    for options, named in (
        (f'{common} --recipe relja --epochs 1', "recipe 'modern', now it is 'relja'"),
        (f'{modern} --augment-turn-deg 3', 'config.augment.turn_deg'),
    ):
        assert main([*options.split(), '--resume']) == 1
        assert named in capsys.readouterr().err
