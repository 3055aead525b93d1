"""A CoAP message whose second option's delta, 289, takes two more bytes. scapy 2.5.0 writes them in host order."""

import socket

from scapy.contrib.coap import CoAP

message = bytes(CoAP(type=1, code=1, msg_id=4711, options=[("Uri-Path", b"a"), (300, b"x")]))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(message, ("server", 5683))
