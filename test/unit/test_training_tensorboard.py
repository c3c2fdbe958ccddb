# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Curves of a run for TensorBoard, read back from the event files."""

import logging
from pathlib import Path
import sys
import time

import numpy as np
import pytest

from netvlad_ros.training.modern import ModernTrainer
from netvlad_ros.training.tensorboard_log import TensorBoardLog
from netvlad_ros.training.triplet import TripletTrainer

sys.path.insert(0, str(Path(__file__).parent))
from test_training_modern import CONFIG as MODERN
from test_training_modern import KilledError, killed_at, make_network
from test_training_modern import make_data as make_places
from test_training_triplet import CONFIG, Linear, make_data

TRAIN = {'train/loss', 'train/lr', 'train/violating_share', 'train/images_per_s'}


def read_back(run: Path) -> dict[str, dict[int, float]]:
    loader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = loader.EventAccumulator(str(run / 'tensorboard'), size_guidance={'scalars': 0})
    events.Reload()
    curves = {}
    for tag in events.Tags()['scalars']:
        values = events.Scalars(tag)
        curves[tag] = {event.step: event.value for event in values}
        assert len(curves[tag]) == len(values), f'{tag} has a step twice'
    return curves


def test_curves_of_triplet_training(tmp_path):
    trainer = TripletTrainer(Linear(), make_data(), make_data(seed=1), CONFIG, tmp_path)
    losses = trainer.run()
    curves = read_back(tmp_path)
    assert set(curves) == TRAIN | {f'val/recall_at_{n}' for n in (1, 5, 10)}
    steps = list(range(1, len(losses) + 1))
    assert [list(curves[tag]) for tag in sorted(TRAIN)] == [steps] * 4
    np.testing.assert_allclose(list(curves['train/loss'].values()), losses, rtol=1e-6)
    rates = list(curves['train/lr'].values())
    assert rates[0] == pytest.approx(CONFIG.lr) and rates[-1] == pytest.approx(CONFIG.lr / 2)
    shares = np.array(list(curves['train/violating_share'].values()))
    # The cache is a few batches old, so most of the mined negatives still violate, not all.
    assert shares.max() == 1 and 0.5 < shares.mean() < 1
    np.testing.assert_array_equal(shares == 0, np.array(losses) == 0)
    assert min(curves['train/images_per_s'].values()) > 0
    recalls = list(curves['val/recall_at_5'].values())
    assert len(recalls) == CONFIG.epochs and max(recalls) == pytest.approx(trainer.best[0])


def test_curves_of_place_labelled_training_go_on_after_a_resume(tmp_path):
    data = make_places()
    whole = ModernTrainer(make_network(), data, data, MODERN, tmp_path / 'whole').run()

    first = ModernTrainer(make_network(), data, data, MODERN, tmp_path / 'parts')
    with pytest.raises(KilledError):
        first.run(progress=killed_at(17))
    first.board.close()
    # Event files are read in the order of their names, which hold the second they begin in.
    time.sleep(1.0 - time.time() % 1.0)
    ModernTrainer(make_network(), data, data, MODERN, tmp_path / 'parts').run(resume=True)
    curves = read_back(tmp_path / 'parts')
    assert set(curves) == TRAIN | {'val/recall_at_1', 'val/average_precision'}
    assert list(curves['train/loss']) == list(range(1, MODERN.steps + 1))
    np.testing.assert_allclose(list(curves['train/loss'].values()), whole, atol=1e-6)
    assert list(curves['val/recall_at_1']) == [0, 10, 20, 30]
    assert all(0 <= share <= 1 for share in curves['train/violating_share'].values())


def test_without_tensorboard_training_warns_once_and_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with caplog.at_level(logging.WARNING):
        board = TensorBoardLog(tmp_path)
        for step in range(3):
            board.add(step, {'train/loss': 1.0})
        board.close()
    assert [record.getMessage() for record in caplog.records] == [
        "no TensorBoard logs: 'pip install tensorboard' adds them"
    ]
    assert not list(tmp_path.iterdir())
