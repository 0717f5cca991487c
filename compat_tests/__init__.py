"""Black-box tests through the socket: real clients, a real engine, real containers."""
