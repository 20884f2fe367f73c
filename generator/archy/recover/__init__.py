# SPDX-License-Identifier: MIT
"""archy-recover: mends Podman, from the least force to the most."""
