"""How a peer gets in: offers, trickle, WHIP, ICE servers, keys, and the data channel's messages."""
