#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
# Show who builds and who waits; options go to `ipclock status`.
set -euo pipefail
source "$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)/lib/deploy.sh"
load_config
exec ipclock status "$@"
