#!/bin/bash
# SPDX-License-Identifier: MIT
# Fails unless its script has waited before it, and it can wait itself.
(($(date +%s) - BEGUN >= 2)) || exit 1
sleep 2
(($(date +%s) - BEGUN >= 4))
