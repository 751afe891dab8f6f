"""End-of-turn rules, one file each; the module's name is the engine's name."""
