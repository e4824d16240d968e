#!/bin/bash
# SPDX-License-Identifier: MIT
# As 6.12's: it waits before programs, whether they are to run or not.
sleep 3600
./rested.sh an hour
BEGUN=$(date +%s)
export BEGUN
sleep 2
./rested.sh a moment
sleep 3600
