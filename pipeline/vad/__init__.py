"""Voice activity detectors, one file each; the module's name is the engine's name."""
