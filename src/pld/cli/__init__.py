"""The `pld` commands: read arguments, call one function, print the result."""
