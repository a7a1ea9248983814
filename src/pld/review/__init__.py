"""What people decide about instructions: the sheet they fill in, its checks, and the log of decisions."""
