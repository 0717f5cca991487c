"""Black-box tests over the API socket: real clients, a real engine, real containers."""
