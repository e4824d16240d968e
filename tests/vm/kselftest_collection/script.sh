#!/bin/bash
# SPDX-License-Identifier: MIT
# As newer scripts of the kernel do: TAP of its own, and that of the programs it runs behind "# ".
words=(TAP version 13)
echo "${words[@]}"
echo 1..1
./passes | sed 's/^/# /'
echo "ok 1 passes"
