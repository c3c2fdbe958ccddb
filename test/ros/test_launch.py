# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file under the real ``launch``, where that is installed (every ROS from apt)."""

import pytest

for name in ('launch', 'launch_ros', 'launch_testing'):
    pytest.importorskip(name, reason=f'{name} is not installed (it is not on PyPI)')

import launch_checks  # noqa: E402
from launch_testing.loader import LoadTestsFromPythonModule  # noqa: E402
from launch_testing.test_runner import LaunchTestRunner  # noqa: E402


def test_launch_file_starts_the_node_and_ends_it_cleanly():
    runs = LoadTestsFromPythonModule(launch_checks, name='vpr_launch')
    results = LaunchTestRunner(runs).run()
    assert results and all(result.wasSuccessful() for result in results.values())
