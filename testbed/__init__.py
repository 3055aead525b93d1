"""Client and server socket code on several real hosts, of both byte orders, on one machine."""
