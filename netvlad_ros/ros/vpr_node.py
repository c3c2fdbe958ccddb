# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The executable ``vpr_node``: answers signals from its first moment, then loads the node."""

import os
import signal
import sys


def main() -> int:
    """Run the node until SIGINT or SIGTERM; see ``netvlad_ros.ros.run.run``."""
    # Importing torch takes seconds in which nothing is open yet: an end is an end at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    from netvlad_ros.ros.run import run

    return run()


if __name__ == '__main__':
    sys.exit(main())
