"""The conformance suite: named checks that any OpenAI-compatible gateway can be driven through.

The gateway under test stands before scripted fake engines, whose control routes tell what really
arrived there. A check knows nothing of the product that it looks at.
"""
