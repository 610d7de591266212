"""Self-contained `evaluate` modules, one folder each; `evaluate.load("path/to/folder")` works on every one."""
