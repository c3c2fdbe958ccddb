#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
# Maps a drive and prints its loop closures: node, player and listener as three processes over DDS.
#   bash scripts/demo.sh            a simulated drive, made on the first run
#   bash scripts/demo.sh BAG        a rosbag2 with camera images (and odometry), or a sequence folder
# RATE=2 plays twice as fast. The report is left in output/.

set -eo pipefail
SOURCE=${1:+$(realpath "$1")}
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Discovery stays on this machine, on a domain of this run's own.
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((RANDOM % 100 + 1))
# Room for the player's depth images.
profiles=FASTDDS_DEFAULT_PROFILES_FILE
[[ $DISTRO != @(humble|jazzy) ]] || profiles=FASTRTPS_DEFAULT_PROFILES_FILE
export "$profiles=$ROOT/config/fastdds.xml"

if [[ -z $SOURCE ]]; then
  SOURCE=$ROOT/output/drive
  if [[ ! -f $SOURCE/metadata.yaml ]]; then
    say "Making a simulated drive (once)"
    rm -rf "$SOURCE" "$SOURCE.part"
    netvlad simulate "$SOURCE.part"
    mv "$SOURCE.part" "$SOURCE"
  fi
fi

# What the source calls its topics, how its images come, and what its protocol asks of the node.
eval "$(python - "$SOURCE" << 'PYTHON'
import shlex, sys
from netvlad_ros.errors import NetvladError
from netvlad_ros.evaluation.sources import open_source
try:
    source = open_source(sys.argv[1])
except NetvladError as error:
    sys.exit(f'echo {shlex.quote(f"demo: {error}")} >&2; exit 1')
topics = getattr(source, 'topics', None)
image = topics.image if topics else '/image'
arguments = [f'image_transport:={"compressed" if image.endswith("/compressed") else "raw"}']
if 'keyframes' in source.protocol:
    arguments.append(f'keyframes.policy:={source.protocol["keyframes"]}')
if 'exclude_s' in source.protocol:
    arguments.append(f'search.exclude_s:={float(source.protocol["exclude_s"])}')
remappings = [f'image:={image.removesuffix("/compressed")}']
for name in ('odom', 'camera_info', 'depth'):
    if topic := (getattr(topics, name) if topics else f'/{name}'):
        remappings.append(f'{name}:={topic}')
# The player can wait for each image; the default, best effort, is for cameras that cannot.
arguments.append(f'qos_overrides.{image}.subscription.reliability:=reliable')
words = [word for a in arguments for word in ('-p', a)]
words += [word for r in remappings for word in ('-r', r)]
print(f'IMAGE={shlex.quote(image)} NODE_ARGUMENTS=({shlex.join(words)})')
PYTHON
)"

pids=()
trap 'kill -INT "${pids[@]}" 2>/dev/null || true' EXIT
say "Starting vpr_node, the listener and the player on domain $ROS_DOMAIN_ID"
netvlad listen & listener=$!
"$INSTALL/netvlad_ros/lib/netvlad_ros/vpr_node" --ros-args "${NODE_ARGUMENTS[@]}" & node=$!
pids=("$listener" "$node")
netvlad play "$SOURCE" --rate "${RATE:-1}" --wait-for "$IMAGE" --wait-s 120
sleep 2
kill -INT "$node" && wait "$node"
kill -INT "$listener" && wait "$listener"
pids=()

say "Judging the same drive against the truth"
REPORT=$ROOT/output/$(basename "$SOURCE")-report
netvlad evaluate "$SOURCE" --output "$REPORT" --overwrite
say "The report with pictures: $REPORT/report.html"
