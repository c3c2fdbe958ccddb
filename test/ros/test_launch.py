# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file under the real ``launch``, where that is installed (every ROS from apt)."""

import os
from pathlib import Path
import unittest

import pytest

for name in ('launch', 'launch_ros', 'launch_testing'):
    pytest.importorskip(name, reason=f'{name} is not installed (it is not on PyPI)')

from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_testing.actions import ReadyToTest  # noqa: E402
import launch_testing.asserts  # noqa: E402
from launch_testing.loader import LoadTestsFromPythonModule  # noqa: E402
from launch_testing.test_runner import LaunchTestRunner  # noqa: E402

from launch import LaunchDescription  # noqa: E402

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'vpr.launch.py'
MODEL = os.environ.get('NETVLAD_TEST_MODEL', 'default')


def generate_test_description():
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
        launch_arguments={
            'namespace': 'robot1', 'model': MODEL, 'image_topic': '/camera/image',
            'use_sim_time': 'true', 'log_level': 'info',
        }.items(),
    )  # fmt: skip
    return LaunchDescription([node, ReadyToTest()])


class NodeComesUp(unittest.TestCase):  # noqa: D101
    def test_it_says_which_model_it_runs(self, proc_output):  # noqa: D102
        proc_output.assertWaitFor('[robot1.vpr]: model ', timeout=90)


@launch_testing.post_shutdown_test()
class NodeEndsCleanly(unittest.TestCase):  # noqa: D101
    def test_exit_code(self, proc_info):  # noqa: D102
        launch_testing.asserts.assertExitCodes(proc_info)


def test_launch_file_starts_the_node_and_ends_it_cleanly():
    import sys

    module = sys.modules[__name__]
    runs = LoadTestsFromPythonModule(module, name='vpr_launch')
    results = LaunchTestRunner(runs).run()
    assert all(result.wasSuccessful() for result in results.values())
