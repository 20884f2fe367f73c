# SPDX-License-Identifier: MIT
"""archy: app manifests become Podman Quadlet units; systemd supervises every container."""

__version__ = "0.1.0"
