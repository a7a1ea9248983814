"""Compose conf/ with params.yaml, build what a `_target_` names, and find the files that installed packages ship."""
