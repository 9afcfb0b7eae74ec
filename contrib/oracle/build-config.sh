# Settings of the build lock and of the deploy scripts beside it.
#
# Read by ipclock, which takes KEY=VALUE lines and executes nothing, and sourced by the scripts. It adds to
# /etc/ipclock/build-config.sh: a key that both set is this file's. A variable that is set in the environment wins over
# both: BUILD_TIMEOUT=900 ./deploy-staging.sh
# shellcheck shell=bash disable=SC2034  # the scripts and ipclock use them

# How many builds may run at once. A change applies from the next build on, and to those that wait, by itself.
MAX_PARALLEL_BUILDS=1

# How long a build waits for its turn, in seconds (or 15m).
BUILD_TIMEOUT=600

# Where the records of the running builds are kept. Left out: as /etc/ipclock/build-config.sh says, else /dev/shm.
# LOCK_DIR="/tmp/oracle-build-locks"

# What a build that timed out recommends.
STATUS_HINT="./scripts/oracle/check-build-status.sh"
RESET_HINT="./scripts/oracle/force-unlock.sh"

# Commands that are told when a build waits, starts, ends, or gets no slot in time. Left out: none.
# ON_WAIT=/etc/ipclock/notify-chat.sh
# ON_ACQUIRE=/etc/ipclock/notify-chat.sh
# ON_RELEASE=/etc/ipclock/notify-chat.sh
# ON_TIMEOUT=/etc/ipclock/notify-chat.sh

# Where releases are put. Left empty: the directory .deploy of the project.
DEPLOY_ROOT=""

# How many releases of each environment a deploy leaves there; the current and the previous one stay in any case. Left
# empty: all.
KEEP_RELEASES=10

# What makes the artefact "$ARTEFACT", run by bash in the project's directory. Left empty: a tarball of the directory.
BUILD_COMMAND=""
