#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
# Build the project in a slot and make the result the current release of staging.
#
#     deploy-staging.sh [PROJECT_DIR]
set -euo pipefail
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/deploy.sh"
source "$here/lib/build-lock.sh"

load_config
locate_project "${1-}"

# a release that is not finished goes, whatever ends the script
release=
trap 'if [ -n "$release" ]; then rm -rf -- "$release" || true; fi' EXIT

acquire_lock "${BUILD_LABEL:-Staging Deployment}"
mkdir -p -- "$deploy_root/staging/releases"
alone new_release staging
export ARTEFACT=$release/artefact.tar.gz
if [ -n "${BUILD_COMMAND-}" ]; then
    (cd -- "$project_dir" && bash -c "$BUILD_COMMAND") || {
        status=$?
        say "deploy-staging.sh: the build failed with status $status; staging is as it was"
        exit "$status"
    }
else
    tar -czf "$ARTEFACT" --exclude=./.deploy --exclude=./.git -C "$project_dir" .
fi
[ -e "$ARTEFACT" ] || die "BUILD_COMMAND has not made \$ARTEFACT"
alone publish staging
prune staging
release_lock
say "staging: $tag"
