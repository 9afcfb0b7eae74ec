"""The pool of one machine: the protocol of PROTOCOL.md, its files, a snapshot."""
