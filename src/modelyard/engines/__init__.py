"""What runs a model. One file per engine; an engine builds commands and runs nothing."""
