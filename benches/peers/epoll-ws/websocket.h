// WebSocket by hand: what is possible when nothing stands between the frames and the kernel. Whole messages of one
// frame; what is fragmented ends the connection.
#ifndef ARENA_WEBSOCKET_H
#define ARENA_WEBSOCKET_H

#include "loop.h"

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { MAX_HEAD = 16 * 1024, MAX_MESSAGE = 1 << 20 };

// A client's frame.
struct frame {
    unsigned char opcode;
    unsigned char *payload;
    size_t len, whole; // of the payload; of the frame with its head, zero while that is not known
};

// Reads a frame's head, and unmasks the payload in place where all of it is there (true). False where it is not, and
// for what is not allowed, with `wrong` set.
bool parse(unsigned char *data, size_t available, struct frame *frame, bool *wrong);

// Writes the head of a server's frame so that it ends at the payload; returns where it begins. A client's head is
// longer by its mask, so that the room is there when the payload came from one.
unsigned char *put_head(unsigned char *payload, unsigned char opcode, size_t len);

bool is_utf8(const unsigned char *text, size_t len);

// The response to a request that ends with an empty line; its length, or zero where the request asks for nothing known.
enum { MAX_RESPONSE = 256 };
size_t accept_request(const char *request, size_t len, char response[MAX_RESPONSE]);

#endif
