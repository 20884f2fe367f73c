# SPDX-License-Identifier: MIT
"""archy-probe, as the service user: asks apps and Podman, and changes nothing."""
