"""Gateways of other makes, ready to stand before fake engines: how each is installed, configured,
started and ended, and what it does not claim.
"""
