/* The message of the exchange programs, as it is on the wire:
 *
 *     4 bytes   an unsigned integer, network order
 *     2 bytes   the length of the text in bytes, network order
 *     ...       the text, without a NUL
 *
 * The server answers with one byte: ACKNOWLEDGED after a whole message, CUT_SHORT otherwise. */

#ifndef EXCHANGE_H
#define EXCHANGE_H

enum { HEADER_SIZE = 6, LONGEST_TEXT = 65535 };
enum { ACKNOWLEDGED = 0x06, CUT_SHORT = 0x15 }; /* ASCII's ACK and NAK */

#endif
