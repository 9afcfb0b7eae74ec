# What shtab cannot know: the tickets and labels of the pool, and what completes the command behind `wrap LABEL --`.

function __ipclock_labels
    ipclock complete labels (commandline -opc)[2..] 2>/dev/null
end

function __ipclock_tickets
    # fish shows what follows a tab beside the word
    ipclock complete tickets (commandline -opc)[2..] 2>/dev/null | string replace ' ' \t
end

function __ipclock_builds
    __ipclock_tickets
    __ipclock_labels
end

function __ipclock_in_command
    set -l tokens (commandline -opc)
    test "$tokens[2]" = wrap; and contains -- -- $tokens
end

function __ipclock_command
    string match -qr -- '(?s)^.*?\s--\s+(?<rest>.*)$' (commandline -cp | string collect)
    and complete --do-complete="$rest"
end

complete -c ipclock -n __ipclock_in_command -xa '(__ipclock_command)'
