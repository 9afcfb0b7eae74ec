# What shtab cannot know: the tickets and labels of the pool, and what completes the command behind `wrap LABEL --`.
# shellcheck shell=bash

# $1: the kind of words, $2: the word as typed so far
_ipclock_offer() {
    local typed=$2 quote='' line
    case $typed in
        [\"\']*) quote=${typed:0:1} typed=${typed:1} ;;
        *) typed=${typed//\\/} ;;
    esac
    while IFS= read -r line; do
        [[ $1 != tickets ]] || line=${line%% *}
        [[ $line == "$typed"* ]] || continue
        # readline closes a quote that was opened, and quotes nothing by itself
        case $quote in
            \') [[ $line == *\'* ]] || printf '%s\n' "$line" ;;
            \") printf '%s\n' "$line" | sed 's/["\\$`]/\\&/g' ;;
            *) line=$(printf '%q' "$line") && printf '%s\n' "${line//:/\\:}" ;;
        esac
    done < <(ipclock complete "$1" "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
}

_ipclock_labels() { _ipclock_offer labels "$1"; }
_ipclock_tickets() { _ipclock_offer tickets "$1"; }
_ipclock_builds() { _ipclock_tickets "$1"; _ipclock_labels "$1"; }
_ipclock_groups() { compgen -g -- "$1"; }

_ipclock() {
    local at word words=() cword=$COMP_CWORD
    for ((at = 2; at < COMP_CWORD; at++)); do
        if [[ ${COMP_WORDS[1]} == wrap && ${COMP_WORDS[at]} == -- ]]; then
            if declare -F _command_offset >/dev/null; then
                _command_offset $((at + 1))
            elif ((at + 1 == COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
            fi
            return
        fi
    done
    # bash makes three words of --name=x: as two they are those that the parser knows
    for at in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[at]}
        if [[ $word == '=' ]]; then
            ((at < COMP_CWORD ? cword-- : 0))
            ((at == COMP_CWORD)) && words+=('')
        else
            words+=("$word")
        fi
    done
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$cword
    _shtab_ipclock
}

complete -o bashdefault -F _ipclock ipclock
