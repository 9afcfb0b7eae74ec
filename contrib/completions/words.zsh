# What shtab cannot know: the tickets and labels of the pool, and what completes the command behind `wrap LABEL --`.

# the first word is the command of ours by then
_ipclock_ask() { ipclock complete $1 "${(@Q)words[1,CURRENT-1]}" 2>/dev/null }

# compadd quotes what it inserts, and would quote what it shows
_ipclock_labels() {
  local -a labels=(${(f)"$(_ipclock_ask labels)"})
  compadd "$@" -d labels -a labels
}

_ipclock_tickets() {
  local -a lines=(${(f)"$(_ipclock_ask tickets)"})
  local -a tickets=(${lines%% *})
  compadd "$@" -l -d lines -a tickets
}

_ipclock_builds() {
  _ipclock_tickets "$@"
  _ipclock_labels "$@"
}

functions[_ipclock_own_words]=$functions[_shtab_ipclock]
_shtab_ipclock() {
  local -i at=${words[(i)--]}
  if [[ $words[2] == wrap ]] && (( at < CURRENT )); then
    shift $at words
    (( CURRENT -= at ))
    _normal
  else
    _ipclock_own_words "$@"
  fi
}
