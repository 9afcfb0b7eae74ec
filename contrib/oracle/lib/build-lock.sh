# The build lock for bash scripts: source this file, then
#
#     init_semaphore                       # optional: makes the pool if it is not there
#     acquire_lock "Staging Deployment"    # waits for a slot; 75 when there is none in time
#     release_lock                         # gives it back; also happens when the script ends, however it ends
#
# The slot belongs to the shell that called acquire_lock and to what it starts: it is held for as long as one of them
# lives, however the script ends. The script gives it back at once by release_lock, whatever it has left running. From
# a trap release_lock takes it from nobody: bash runs traps while a build of the script may still run.
# In a pool of several hosts the slot belongs to the shell alone, and ends with it.
# Works under `set -euo pipefail`, in functions and in subshells; bash 4.2 or later. An EXIT trap set before is run
# after ours; INT and TERM traps are left alone, since the slot needs none.
# shellcheck shell=bash

_build_lock_depth=${_build_lock_depth-0}

# Make the pool, with as many slots as MAX_PARALLEL_BUILDS says.
init_semaphore() {
    ipclock init >/dev/null
}

# Wait for a slot for the project "$1" and hold it. Called again while the slot is held, it counts: the last
# release_lock gives the slot back. Returns the exit status of `ipclock acquire`.
acquire_lock() {
    # in $(...) BASHPID would be that subshell's
    local project=${1:?acquire_lock: which project?} shell=$BASHPID file='' hold=()
    if ((_build_lock_depth > 0)); then
        _build_lock_depth=$((_build_lock_depth + 1))
        return 0
    fi
    _build_lock_open || return
    _build_lock_ticket=$(ipclock acquire "${hold[@]}" --pid "$shell" "$project") || {
        local status=$?
        exec {_build_lock_fd}>&-
        rm -f -- "$file"
        return "$status"
    }
    if [ "$_build_lock_ticket" = 0 ]; then
        # a build around us holds the slot, and gives it back itself
        exec {_build_lock_fd}>&-
        rm -f -- "$file"
    else
        unset IPCLOCK_NAME
        export IPCLOCK_TICKET=$_build_lock_ticket
    fi
    _build_lock_depth=1
    _build_lock_shell=$shell
    _build_lock_trap EXIT
    trap '_build_lock_exit' EXIT
}

# Open the file whose descriptor is the hold: every process that inherits it keeps the slot. Sets file and hold, which
# are acquire_lock's.
_build_lock_open() {
    local folder tries=2
    while folder=$(ipclock init) || return; do
        if [[ $folder != /* ]]; then
            # a pool of several hosts: a process of ipclock's keeps the slot for as long as this shell lives
            exec {_build_lock_fd}>/dev/null
            return
        fi
        file=$folder/new/$shell.$RANDOM$RANDOM
        if exec {_build_lock_fd}>"$file"; then
            hold=(--fd "$_build_lock_fd")
            return
        fi
        # the pool may have been removed since: init makes it again
        ((--tries)) || return 1
    done
}

# Give the slot back: in a trap, as far as nothing that the script has started still runs in it. Without one, does
# nothing: a trap may call it a second time.
release_lock() {
    if ((_build_lock_depth != 1)); then
        _build_lock_depth=$((_build_lock_depth > 0 ? _build_lock_depth - 1 : 0))
        return 0
    fi
    if _build_lock_in_flow; then
        _build_lock_leave -q --now
    else
        _build_lock_leave
    fi
}

# Return whether the script itself calls us, for certain, and no trap.
_build_lock_in_flow() {
    # a subshell of a trap looks like the script
    [ "$BASHPID" = "$_build_lock_shell" ] || return 1
    # while an EXIT trap runs, it is not listed
    if [ "$(trap -p)" = "trap -- '_build_lock_exit' EXIT" ]; then return 0; fi
    # in a trap this stays the command that the trap has interrupted; not so before bash 5
    # shellcheck disable=SC2016  # its own text
    ((BASH_VERSINFO[0] >= 5)) && [[ $BASH_COMMAND == *'$BASH_COMMAND'* ]]
}

# Leave the slot; "$@" are options of `ipclock release`.
_build_lock_leave() {
    _build_lock_depth=0
    if [ "$_build_lock_ticket" != 0 ]; then
        ipclock release "$@" "$_build_lock_ticket" || true
        unset IPCLOCK_TICKET
        # what still runs has it too, and so the slot
        exec {_build_lock_fd}>&-
    fi
    if [ "$BASHPID" = "$_build_lock_shell" ] && [[ $(trap -p EXIT) == *_build_lock_exit* ]]; then
        # shellcheck disable=SC2064  # the caller's own command, as it stood
        if [ -n "$_build_lock_before" ]; then trap "$_build_lock_before" EXIT; else trap - EXIT; fi
    fi
}

# Keep the command of the trap "$1" in _build_lock_before.
_build_lock_trap() {
    local set
    # a subshell shows its parent's traps, which are not its own, until it changes one
    if ((BASH_SUBSHELL > 0)); then trap - RTMAX; fi
    set=$(trap -p "$1")
    # "trap -- 'command' EXIT", quoted to be read again by the shell
    eval "set -- $set"
    _build_lock_before=${3-}
}

_build_lock_exit() {
    local status=$?
    if ((_build_lock_depth > 0)); then
        _build_lock_leave
    fi
    # the caller's trap finds in $? the status with which the script ends
    if ((status)); then
        (exit "$status") || eval "$_build_lock_before"
    else
        eval "$_build_lock_before"
    fi
}
