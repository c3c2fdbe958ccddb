#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
# Sets everything up (see setup.sh), then runs the linters and all tests; arguments go to pytest.
#   bash scripts/test.sh                              all tests on Kilted
#   ROS_DISTRO=jazzy bash scripts/test.sh test/ros    the ROS tests on Jazzy

set -eo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Discovery stays on this machine, and two runs at a time do not hear each other.
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1))
# A sourced ROS brings pytest plugins of its own; none is needed here.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
# pytest's last line is to be the last: gRPC's threads (Milvus) write even after it.
export GRPC_VERBOSITY=NONE

if [[ $# -eq 0 ]]; then
  ruff check .
  mypy
fi
python -m pytest "$@"
