# What the deploy scripts share: their settings, versioned release folders, and symlinks that are switched atomically.
# To be sourced; needs bash 4.2 or later, GNU coreutils and flock(1).
#
# An environment is a folder DEPLOY_ROOT/NAME:
#     releases/TIME     a release; releases/.TIME is one that is being made or removed
#     current           the link to the release that is live: the one truth, changed by one rename
#     previous          the link to the one before
#     .previous.TIME    what `previous` becomes when TIME is current
# A script may be killed at any command: the next one brings to an end what `current` says, and clears away the rest.
# shellcheck shell=bash

oracle_dir=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "${0##*/}: $*"
    exit 1
}

# Settings of ipclock, which reads them from build-config.sh itself.
ipclock_keys=(
    MAX_PARALLEL_BUILDS BUILD_TIMEOUT LOCK_DIR SEMAPHORE_NAME BUILD_SLOTS MAX_PER_LABEL BUILD_PRIORITY PRIORITY_MIN FAIR
    MEMORY MIN_FREE_MEMORY LOCK_MODE LOCK_GROUP LEFTOVERS ENGINE ON_LOST HISTORY HISTORY_DAYS LOG_DIR
    LOG_LIMIT LOG_DAYS PROGRESS_INTERVAL ON_WAIT ON_ACQUIRE ON_RELEASE ON_TIMEOUT STATUS_HINT RESET_HINT
)

# Read build-config.sh; what the environment says wins, for the scripts and for ipclock.
load_config() {
    local key
    local -A given=()
    for key in "${ipclock_keys[@]}" DEPLOY_ROOT BUILD_COMMAND KEEP_RELEASES; do
        if [ -n "${!key+x}" ]; then given[$key]=${!key}; fi
    done
    export IPCLOCK_CONFIG=${IPCLOCK_CONFIG-$oracle_dir/build-config.sh}
    # shellcheck source=SCRIPTDIR/../build-config.sh
    source "$IPCLOCK_CONFIG"
    for key in "${ipclock_keys[@]}"; do
        # as a variable of the environment a value of the file would no longer follow the file
        if [ -z "${given[$key]+x}" ]; then export -n "${key?}"; fi
    done
    # bash before 4.4 takes an empty array for an unset variable
    if ((${#given[@]} > 0)); then
        for key in "${!given[@]}"; do
            printf -v "$key" %s "${given[$key]}"
        done
    fi
}

# Set project_dir from the argument "$1" (default: the current folder) and deploy_root from the settings.
locate_project() {
    project_dir=$(cd -P -- "${1:-.}" && pwd) || die "no such project folder: ${1:-.}"
    deploy_root=${DEPLOY_ROOT:-$project_dir/.deploy}
    [[ ${KEEP_RELEASES:-1} =~ ^[1-9][0-9]*$ ]] ||
        die "KEEP_RELEASES is a number from 1 on, or empty, and not '$KEEP_RELEASES'"
}

# Run the function "$1" for the environment "$2" while no other script changes anything there.
alone() {
    local folder=$deploy_root/$2 lock
    [ -d "$folder" ] || die "there is no release of $2 in $deploy_root"
    # a program that we start inherits the lock: after a kill its rename is done before another script looks
    exec {lock}<"$folder"
    flock -w 60 "$lock" || die "another script has been changing $folder for 60 s"
    settle "$2"
    "$@"
    exec {lock}<&-
}

# The functions from here on to release_of are called by `alone`, with the environment as "$1".

# Finish the switch that a killed script has made, and forget the one that it had only prepared.
settle() {
    local folder=$deploy_root/$1 current
    current=$(readlink -- "$folder/current" || true)
    if [ -L "$folder/.previous.${current##*/}" ]; then
        mv -T -- "$folder/.previous.${current##*/}" "$folder/previous"
    fi
    rm -f -- "$folder/.current" "$folder"/.previous.*
    # no release is before itself; so it was left where a roll-back found its current release removed
    if [ "$folder/previous" -ef "$folder/current" ]; then rm -f -- "$folder/previous"; fi
}

# Make the release "$2" the current one, and the one that was current the previous one. The rename of `current` decides:
# .previous.TAG tells before it what is previous once TAG is current. Without it a kill between two renames would leave
# both links at one release, and the other one forgotten.
switch() {
    local folder=$deploy_root/$1 tag=$2
    # a release that was removed is nothing to go back to
    if [ -d "$folder/current/" ]; then
        ln -s -T -- "$(readlink -- "$folder/current")" "$folder/.previous.$tag"
    fi
    ln -s -T -- "releases/$tag" "$folder/.current"
    mv -T -- "$folder/.current" "$folder/current"
    settle "$1"
}

# Make the folder of a new release; set `release` to its path, and `tag` to the time in UTC. Until it is published its
# name is hidden, and the script and all that it starts have it locked: after a kill others remove it, but not before
# the last of its build has ended.
new_release() {
    local releases=$deploy_root/$1/releases now number=0
    sweep "$1"
    now=$(date -u +%Y%m%dT%H%M%SZ)
    tag=$now
    until [ ! -e "$releases/$tag" ] && mkdir -- "$releases/.$tag" 2>/dev/null; do
        number=$((number + 1))
        tag=$now.$number
        if ((number > 999)); then die "cannot make a release folder in $releases"; fi
    done
    release=$releases/.$tag
    exec {release_lock}<"$release"
    flock -n "$release_lock"
}

# Give the new release its name, and make it the current one.
publish() {
    local whole=$release
    # a trap that runs during the rename must not remove what has its name already
    release=
    mv -T -- "$whole" "$deploy_root/$1/releases/$tag"
    switch "$1" "$tag"
    exec {release_lock}<&-
}

# Hide the releases that are neither current, nor previous, nor among the newest KEEP_RELEASES, for `prune`.
hide_old() {
    local folder=$deploy_root/$1 number=0 name
    while read -r name; do
        number=$((number + 1))
        if ((number <= KEEP_RELEASES)) || [ "$folder/releases/$name" -ef "$folder/current" ] ||
            [ "$folder/releases/$name" -ef "$folder/previous" ]; then
            continue
        fi
        if mv -T -- "$folder/releases/$name" "$folder/releases/.$name"; then old+=("$folder/releases/.$name"); fi
    done < <(cd -- "$folder/releases" && printf '%s\n' [0-9]*T[0-9]*Z* | sort -rV)
}

# Remove the releases that nobody will finish any more, or that somebody has not removed to the end.
sweep() {
    local folder
    for folder in "$deploy_root/$1/releases"/.[0-9]*; do
        if [ -d "$folder" ]; then flock -n "$folder" rm -rf -- "$folder" || true; fi
    done
}

# Print the path of the release that the link "$2" of the environment "$1" names.
release_of() {
    local folder=$deploy_root/$1 target
    target=$(readlink -- "$folder/$2") || die "there is no $2 release of $1 in $deploy_root"
    [ -d "$folder/$target" ] || die "the $2 release of $1 was removed: $folder/$target"
    printf '%s\n' "$folder/$target"
}

# Remove the releases of the environment "$1" that are not to be kept.
prune() {
    local old=()
    if [ -z "${KEEP_RELEASES-}" ]; then return 0; fi
    # hidden first: what is half removed must not look whole; removed later: that may take longer than others can wait
    alone hide_old "$1"
    if ((${#old[@]} > 0)); then rm -rf -- "${old[@]}" || true; fi
}
