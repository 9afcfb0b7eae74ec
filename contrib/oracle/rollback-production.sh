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

acquire_lock "${BUILD_LABEL:-Production Rollback}"
previous=$(release_of production previous)
activate production "$previous"
release_lock
say "production: ${previous##*/}"
