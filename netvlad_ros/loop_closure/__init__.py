# SPDX-FileCopyrightText: 2026 netvlad_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From search results to loop closures: scores, consistency, geometry, places."""
