"""The command line: one file per verb, each with `command`; `main` imports only the one that runs."""
