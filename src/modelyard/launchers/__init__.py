"""Where a worker runs: process, docker, later ray and kubernetes."""
