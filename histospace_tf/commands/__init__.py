"""The command line's commands, a file a kind."""
