"""Pure decisions and the shared vocabulary. No I/O, clock, randomness, environment or logging."""
