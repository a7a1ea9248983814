"""Look at a file of labelled examples before anything is spent on it, and write the task that reads it."""
