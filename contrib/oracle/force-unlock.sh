#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
# Take all slots back by force, or the one whose ticket is given. Running builds are named and go on.
set -euo pipefail
source "$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)/lib/deploy.sh"
load_config
exec ipclock reset "$@"
