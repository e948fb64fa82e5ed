"""How the controller asks one slot of a model through a gateway, whatever the shares are."""

SLOT_HEADER = "x-modelyard-slot"
"""Names the slot. Only with the gateway's own token, which nobody but the controller has."""
PINNED_BY = "modelyard"
"""Tenant and key id of such requests: they fall under no limit, and are no evidence of users."""
