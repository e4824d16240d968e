# SPDX-License-Identifier: MIT
"""A kernel-patch test harness for HugeTLB high-granularity mapping, run in VMs."""
