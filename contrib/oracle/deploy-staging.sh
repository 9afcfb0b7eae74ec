#!/usr/bin/env bash
# Build the project in a slot and make the result the current release of staging.
#
#     deploy-staging.sh [PROJECT_DIR]
set -euo pipefail
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/deploy.sh"
source "$here/lib/build-lock.sh"

load_config
locate_project "${1-}"

acquire_lock "${BUILD_LABEL:-Staging Deployment}"
release=$(new_release staging)
export ARTEFACT=$release/artefact.tar.gz
if [ -n "${BUILD_COMMAND-}" ]; then
    (cd -- "$project_dir" && bash -c "$BUILD_COMMAND") || {
        status=$?
        rm -rf -- "$release"
        say "deploy-staging.sh: the build failed with status $status; staging is as it was"
        exit "$status"
    }
else
    tar -czf "$ARTEFACT" --exclude=./.deploy --exclude=./.git -C "$project_dir" .
fi
if [ ! -e "$ARTEFACT" ]; then
    rm -rf -- "$release"
    die "BUILD_COMMAND has not made \$ARTEFACT"
fi
activate staging "$release"
release_lock
say "staging: ${release##*/}"
