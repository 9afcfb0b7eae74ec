#!/usr/bin/env bash
# Make the current release of staging the current release of production.
#
#     promote-production.sh [PROJECT_DIR]
set -euo pipefail
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/deploy.sh"
source "$here/lib/build-lock.sh"

load_config
locate_project "${1-}"

acquire_lock "${BUILD_LABEL:-Production Promotion}"
staged=$(release_of staging current)
release=$(new_release production)
cp -a -- "$staged/." "$release/"
printf '%s\n' "${staged##*/}" >"$release/promoted-from"
activate production "$release"
release_lock
say "production: ${release##*/} (staging ${staged##*/})"
