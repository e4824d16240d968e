# SPDX-License-Identifier: MIT
"""From a source and its patches to a kernel that boots: everything here is content-addressed and kept in the cache."""
