"""Training: how the bundled models are made. Imported by nobody; `make tiny` runs it."""
