"""The `seaway` command: the operator's hand on a Seaway installation."""
