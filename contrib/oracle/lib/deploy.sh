# What the deploy scripts share: their settings, versioned release folders, and symlinks that are switched atomically.
# To be sourced; needs bash 4.2 or later and GNU coreutils.
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
    MAX_PARALLEL_BUILDS BUILD_TIMEOUT LOCK_DIR SEMAPHORE_NAME BUILD_SLOTS MAX_PER_LABEL BUILD_PRIORITY PRIORITY_MIN
    MEMORY MIN_FREE_MEMORY LOCK_MODE LOCK_GROUP LEFTOVERS ENGINE ON_LOST HISTORY HISTORY_DAYS PROGRESS_INTERVAL
    ON_WAIT ON_ACQUIRE ON_RELEASE ON_TIMEOUT STATUS_HINT RESET_HINT
)

# Read build-config.sh; what the environment says wins, for the scripts and for ipclock.
load_config() {
    local key
    local -A given=()
    for key in "${ipclock_keys[@]}" DEPLOY_ROOT BUILD_COMMAND; do
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
}

# Make a new release folder in the environment "$1" and print its path. The tag is the time in UTC; mkdir either makes
# a folder or fails, so two releases never get the same one.
new_release() {
    local releases=$deploy_root/$1/releases tag number=0 suffix=
    mkdir -p -- "$releases"
    tag=$(date -u +%Y%m%dT%H%M%SZ)
    until mkdir -- "$releases/$tag$suffix" 2>/dev/null; do
        number=$((number + 1))
        suffix=.$number
        if ((number > 999)); then die "cannot make a release folder in $releases"; fi
    done
    printf '%s\n' "$releases/$tag$suffix"
}

# Point the symlink "$2" of the environment "$1" to the release folder "$3", in one step for whoever looks.
point() {
    local link=$deploy_root/$1/$2
    ln -s -- "releases/${3##*/}" "$link.$$"
    mv -T -- "$link.$$" "$link"
}

# Make "$2" the current release of the environment "$1" and keep the one before for a roll-back.
activate() {
    local before
    before=$(readlink -- "$deploy_root/$1/current" || true)
    if [ -n "$before" ]; then point "$1" previous "$before"; fi
    point "$1" current "$2"
}

# Print the path of the release that the link "$2" of the environment "$1" points to.
release_of() {
    local target
    target=$(readlink -- "$deploy_root/$1/$2") || die "there is no $2 release of $1 in $deploy_root"
    printf '%s\n' "$deploy_root/$1/$target"
}
