"""Memos sent to a server, each a length and a text. frames.py is the protocol, server.py and client.py are programs."""
