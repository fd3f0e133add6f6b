"""Systems that generate: one file each."""
