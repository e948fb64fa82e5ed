"""Where a worker runs: process, later docker, ray, kubernetes."""
