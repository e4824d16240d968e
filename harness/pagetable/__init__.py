# SPDX-License-Identifier: MIT
"""Page tables as the hardware sees them, read from outside of the guest: no kernel's word is taken for anything."""
