// Frames: heads, masks, text.
#include "websocket.h"

#include <endian.h>
#include <string.h>

// Eight keys, wherever they lie.
typedef uint64_t keys __attribute__((vector_size(32), aligned(1), may_alias));

// For the vectors that the machine has, as memcpy(3) chooses among its own.
__attribute__((target_clones("avx2", "default"))) static void unmask(unsigned char *data, size_t len, uint32_t key) {
    uint64_t wide = (uint64_t)key << 32 | key;
    keys all = {wide, wide, wide, wide};
    size_t i = 0;
    for (; i + 128 <= len; i += 128) {
        keys *at = (keys *)(data + i);
        at[0] ^= all, at[1] ^= all, at[2] ^= all, at[3] ^= all;
    }
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    unsigned char bytes[8];
    memcpy(bytes, &wide, 8);
    for (; i < len; i++) data[i] ^= bytes[i & 7];
}

bool parse(unsigned char *data, size_t available, struct frame *frame, bool *wrong) {
    frame->whole = 0;
    if (available < 2) return false;
    unsigned char first = data[0], opcode = first & 15;
    size_t len = data[1] & 127, head = 2;
    bool known = opcode == TEXT || opcode == BINARY || (opcode >= CLOSE && opcode <= PONG && len < 126);
    // Whole, without extensions, masked.
    if ((first & 0xF0) != 0x80 || !known || !(data[1] & 128)) {
        *wrong = true;
        return false;
    }
    if (len == 126) {
        head += 2;
        if (available < head) return false;
        uint16_t big;
        memcpy(&big, data + 2, 2);
        len = be16toh(big);
    } else if (len == 127) {
        head += 8;
        if (available < head) return false;
        uint64_t big;
        memcpy(&big, data + 2, 8);
        len = be64toh(big);
    }
    if (len > MAX_MESSAGE) {
        *wrong = true;
        return false;
    }
    *frame = (struct frame){opcode, data + head + 4, len, head + 4 + len};
    if (available < frame->whole) return false;
    uint32_t key;
    memcpy(&key, data + head, 4);
    unmask(frame->payload, len, key);
    if (opcode == TEXT && !is_utf8(frame->payload, len)) *wrong = true;
    return !*wrong;
}

unsigned char *put_head(unsigned char *payload, unsigned char opcode, size_t len) {
    unsigned char *head;
    if (len < 126) {
        head = payload - 2;
        head[1] = len;
    } else if (len < 1 << 16) {
        head = payload - 4;
        head[1] = 126;
        uint16_t big = htobe16(len);
        memcpy(head + 2, &big, 2);
    } else {
        head = payload - 10;
        head[1] = 127;
        uint64_t big = htobe64(len);
        memcpy(head + 2, &big, 8);
    }
    head[0] = 0x80 | opcode;
    return head;
}

bool is_utf8(const unsigned char *text, size_t len) {
    size_t i = 0;
    while (i < len) {
        if (i + 8 <= len) {
            uint64_t word;
            memcpy(&word, text + i, 8);
            if (!(word & 0x8080808080808080)) {
                i += 8;
                continue;
            }
        }
        unsigned char c = text[i++];
        if (c < 0x80) continue;
        // How many follow, and the bounds of the first of them (Unicode, table 3-7).
        int more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
        unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (c < 0xC2 || c > 0xF4 || i + more > len || text[i] < low || text[i] > high) return false;
        for (int k = 1; k < more; k++) {
            if ((text[i + k] & 0xC0) != 0x80) return false;
        }
        i += more;
    }
    return true;
}
