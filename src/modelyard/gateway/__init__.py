"""The data plane: one file per hop of a request."""
