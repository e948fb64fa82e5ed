"""Bytes to typed messages and back: HTTP heads, OpenAI's forms, server-sent events, the feed."""
