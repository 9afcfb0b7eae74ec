# Settings of ipclock for all users of this machine; see ipclock-build-config(5).
# shellcheck shell=bash disable=SC2034  # ipclock reads them, and scripts may source them

# The records survive a logout here, and are gone after a boot.
LOCK_DIR=/run/ipclock

# Who is in this group may use the pool: adduser USER ipclock
LOCK_MODE=0660
LOCK_GROUP=ipclock

# How many builds may run at once; a change applies at once.
# MAX_PARALLEL_BUILDS=1
