#!/bin/sh
# Tell a chat what becomes of a build, by its webhook:
#
#     ON_WAIT=/etc/ipclock/notify-chat.sh        # and ON_ACQUIRE, ON_RELEASE, ON_TIMEOUT
#
# The webhook's address is a secret: whoever has it can write to the chat. It is the first line of a file that only its
# owner can read, $CHAT_URL_FILE or else /etc/ipclock/chat-url, ~/.config/ipclock/chat-url for others than root; it
# never stands on a command line, which everybody can read. Sends {"text": "..."}, as Slack and Mattermost take it.
set -eu

fail() {
    echo "notify-chat: $*" >&2
    exit 1
}

if [ "$(id -u)" -eq 0 ]; then default=/etc/ipclock/chat-url; else default=$HOME/.config/ipclock/chat-url; fi
file=${CHAT_URL_FILE:-$default}
# what is opened is what is looked at, whoever replaces the file meanwhile
exec 3<"$file" || fail "$file: cannot be read"
case $(stat -L -c '%u %a' /dev/fd/3) in
"$(id -u) "[46]00) ;;
*) fail "$file: not its owner's alone (chmod 600)" ;;
esac
IFS= read -r url <&3 || [ -n "$url" ] || fail "$file: empty"
exec 3<&-
case $url in
*[!A-Za-z0-9:/?\&=._~%+,@-]*) fail "$file: no address" ;;
http://* | https://*) ;;
*) fail "$file: no address" ;;
esac

label=${IPCLOCK_LABEL:-?}
case ${IPCLOCK_EVENT-} in
wait) text="⏳ $label waits for a build slot" ;;
acquire) text="🔨 $label builds, after ${IPCLOCK_WAITED_S:-?} s of waiting" ;;
release)
    case ${IPCLOCK_OUTCOME-} in
    done) text="✅ $label is built, in ${IPCLOCK_HELD_S:-?} s" ;;
    '') text="$label has given its slot back, after ${IPCLOCK_HELD_S:-?} s" ;;
    *) text="❌ $label: $IPCLOCK_OUTCOME ${IPCLOCK_CODE-}, after ${IPCLOCK_HELD_S:-?} s" ;;
    esac
    ;;
timeout) text="⌛ $label has got no build slot within ${IPCLOCK_WAITED_S:-?} s" ;;
*) fail "to be run by ipclock (IPCLOCK_EVENT is not set)" ;;
esac
text="$text ($(uname -n)${IPCLOCK_NAME-})"

# of a JSON string only these two and control characters need care (RFC 8259, section 7)
escaped=$(printf '%s' "$text" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')
# -q: no ~/.curlrc; nothing that hangs outlives 30 s
printf 'url = "%s"\n' "$url" |
    curl -q --config - --silent --show-error --fail --output /dev/null --proto '=http,https' \
        --connect-timeout 10 --max-time 30 --header 'Content-Type: application/json' \
        --data-raw "{\"text\": \"$escaped\"}"
