# SPDX-License-Identifier: MIT
"""What a finished case says about the kernel: splats, leaks, and the one verdict from all evidence."""
