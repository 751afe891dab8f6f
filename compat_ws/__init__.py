"""The WebSocket and HTTP APIs of the four-service node, and telephony dialects."""
