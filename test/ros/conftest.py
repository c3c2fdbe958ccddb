# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the ROS tests; they are skipped, saying so, where there is no ROS."""

from collections.abc import Callable, Iterator
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed or sourced')
pytest.importorskip('netvlad_msgs.msg', reason='netvlad_msgs is not built or sourced')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

from ros_bench import Bench


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Return a maker of benches; the node is up unless ``up=False``."""
    benches: list[Bench] = []

    def make(up: bool = True, **parameters: Any) -> Bench:
        names = {name.replace('__', '.'): value for name, value in parameters.items()}
        benches.append(Bench(names))
        if up:
            assert benches[-1].node.bring_up()
        return benches[-1]

    yield make
    for item in benches:
        item.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Any]]:
    """Return a starter of processes; those that still run at the end are killed."""
    from test_processes import Process

    logs = tmp_path / 'logs'
    logs.mkdir()
    processes: list[Process] = []

    def launch(command: list[str]) -> Process:
        processes.append(Process(command, logs))
        return processes[-1]

    yield launch
    for item in processes:
        if item.process.poll() is None:
            item.process.kill()
            item.process.wait()
        item.log.close()
