"""Invalid, extreme and costly requests: an answer to each, no 5xx, bounded memory."""
