"""What `pld new-task` looks at and writes: a file's columns, its texts' lengths, a data set of a hub, a task's file."""
