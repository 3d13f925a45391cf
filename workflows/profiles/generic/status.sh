#!/bin/sh
# How is job $1?  Prints success, running or failed.  SITE: ask your scheduler; this asks Slurm.
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>&1 | head -n 1)
case "$state" in
  COMPLETED) echo success ;;
  PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED) echo running ;;
  BOOT_FAIL | CANCELLED | DEADLINE | FAILED | NODE_FAIL | OUT_OF_MEMORY | PREEMPTED | TIMEOUT) echo failed ;;
  "" | *"Invalid job id"*) echo failed ;; # forgotten: older than MinJobAge
  *) echo running ;; # the controller does not answer now: ask again
esac
