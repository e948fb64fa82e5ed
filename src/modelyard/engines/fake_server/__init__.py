"""The fake engine's server: an OpenAI-compatible engine that answers with checkable tokens.

Pure: `answers` (tokens and their verifier), `scripts` (the directive grammar), `faults`,
`scheduler` (slots, queue, decode steps), `requests`, `replies`, `ledger`.
With I/O: `decoding` (the one clock), `generations`, `protocol`, `routes`, `server`, `main`.
"""
