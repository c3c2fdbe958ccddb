# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Local features, matches, relative poses and their covariances, from arrays to arrays."""
