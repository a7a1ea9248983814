"""The stages of dvc.yaml: read settings and files, call one function, write files."""
