#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
# Make the release of production before the current one current again; run twice, it is back where it was.
#
#     rollback-production.sh [PROJECT_DIR]
set -euo pipefail
here=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/deploy.sh"
source "$here/lib/build-lock.sh"

load_config
locate_project "${1-}"

roll_back() {
    previous=$(release_of "$1" previous)
    switch "$1" "${previous##*/}"
}

acquire_lock "${BUILD_LABEL:-Production Rollback}"
alone roll_back production
release_lock
say "production: ${previous##*/}"
