#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
# Make the current release of staging the current release of production.
#
#     promote-production.sh [PROJECT_DIR]
set -euo pipefail
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/deploy.sh"
source "$here/lib/build-lock.sh"

load_config
locate_project "${1-}"

# a release that is not finished goes, whatever ends the script
release=
trap 'if [ -n "$release" ]; then rm -rf -- "$release" || true; fi' EXIT

acquire_lock "${BUILD_LABEL:-Production Promotion}"
staged=$(release_of staging current)
mkdir -p -- "$deploy_root/production/releases"
alone new_release production
cp -a -- "$staged/." "$release/"
# it lost its name before it lost a file: as long as it has it, all of it was there to be copied
[ -d "$staged" ] || die "the release of staging was removed meanwhile: $staged; production is as it was"
printf '%s\n' "${staged##*/}" >"$release/promoted-from"
alone publish production
prune production
release_lock
say "production: $tag (staging ${staged##*/})"
