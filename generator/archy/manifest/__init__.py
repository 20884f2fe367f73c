# SPDX-License-Identifier: MIT
"""What people write: manifest.yml, node.yml, grants.yml. Text in, typed values or problems out."""
