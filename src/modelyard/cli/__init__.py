"""The command line: parses, builds the parts, hands them to each other, prints. No decisions."""
