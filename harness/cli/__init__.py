"""The `harness` command, a file for each subcommand."""
