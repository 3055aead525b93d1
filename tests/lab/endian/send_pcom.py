"""A PCOM/TCP message, which has its length in little-endian order. scapy 2.5.0 writes it in host order."""

import socket

from scapy.contrib.scada.pcom import PCOMAscii, PCOMRequest

message = bytes(PCOMRequest(transId=0x0102) / PCOMAscii(unitId=1, command="ID"))
with socket.create_connection(("server", 20256)) as connection:
    connection.sendall(message)
