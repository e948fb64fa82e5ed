"""The command line: parse, build the parts, hand them to each other, print."""
