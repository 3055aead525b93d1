"""A PCOM/TCP message, whose length is little-endian by definition. scapy 2.5.0 writes it in host order."""

import socket

from scapy.contrib.scada.pcom import PCOMRequest
from scapy.packet import Raw

message = bytes(PCOMRequest(transId=0x0102) / Raw(b"hello"))
with socket.create_connection(("server", 20256)) as connection:
    connection.sendall(message)
