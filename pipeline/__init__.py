"""The conversation: speech detection, turn taking, replies and playout; no web server, no WebRTC."""
