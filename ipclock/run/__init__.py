"""Running a command in a slot: its signals, its hooks, what it uses."""
