"""The bundled page."""
