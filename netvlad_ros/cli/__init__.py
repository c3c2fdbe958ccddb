# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ``netvlad`` command: one file per subcommand, thin over the library."""
