"""Parts of `predict`: where, how many tiles at once, and the formats that it writes."""
