# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What launch_testing runs for test_launch.py: pytest must not collect these classes itself."""

import os
from pathlib import Path
import unittest

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
import launch_testing
from launch_testing.actions import ReadyToTest
import launch_testing.asserts

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'vpr.launch.py'
MODEL = os.environ.get('NETVLAD_TEST_MODEL', 'default')


def generate_test_description():
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
        launch_arguments={
            'namespace': 'robot1', 'model': MODEL, 'image_topic': '/camera/image',
            'use_sim_time': 'true', 'log_level': 'info', 'bridges': 'lio_sam,initialpose',
        }.items(),
    )  # fmt: skip
    return LaunchDescription([node, ReadyToTest()])


class NodeComesUp(unittest.TestCase):  # noqa: D101
    def test_it_says_which_model_it_runs(self, proc_output):  # noqa: D102
        proc_output.assertWaitFor('[robot1.vpr]: model ', timeout=90)


class BridgesComeUp(unittest.TestCase):  # noqa: D101
    def test_they_say_what_they_feed(self, proc_output):  # noqa: D102
        proc_output.assertWaitFor('sends loop closures to lio_sam, initialpose', timeout=90)


@launch_testing.post_shutdown_test()
class NodeEndsCleanly(unittest.TestCase):  # noqa: D101
    def test_exit_code(self, proc_info):  # noqa: D102
        launch_testing.asserts.assertExitCodes(proc_info)
