#include <stdint.h>

enum { PORT = 7000 };

/* What goes before a text: on the wire as it is in memory. */
struct header {
    uint8_t version;
    uint8_t kind;
    uint16_t length; /* of the text */
    uint32_t id;
};
