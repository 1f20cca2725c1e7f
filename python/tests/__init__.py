"""One folder for each framework; python/README.md has the commands."""
