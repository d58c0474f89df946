// The opening handshake (RFC 6455 section 4.2): SHA-1 (RFC 3174) and Base64 of the key.
#include "websocket.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static uint32_t rotate(uint32_t x, int n) {
    return x << n | x >> (32 - n);
}

static void sha1_block(uint32_t h[5], const unsigned char *block) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) {
        uint32_t big;
        memcpy(&big, block + 4 * i, 4);
        w[i] = be32toh(big);
    }
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40) f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// Of at most 64 bytes.
static void sha1(const char *text, size_t len, unsigned char digest[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char blocks[128] = {0};
    memcpy(blocks, text, len);
    blocks[len] = 0x80;
    size_t end = len < 56 ? 64 : 128;
    uint64_t bits = htobe64(len * 8);
    memcpy(blocks + end - 8, &bits, 8);
    for (size_t at = 0; at < end; at += 64) sha1_block(h, blocks + at);
    for (int i = 0; i < 5; i++) {
        uint32_t big = htobe32(h[i]);
        memcpy(digest + 4 * i, &big, 4);
    }
}

static void base64(const unsigned char digest[20], char text[29]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char padded[21] = {0};
    memcpy(padded, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t three = padded[3 * i] << 16 | padded[3 * i + 1] << 8 | padded[3 * i + 2];
        for (int k = 0; k < 4; k++) text[4 * i + k] = letters[three >> (18 - 6 * k) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

size_t accept_request(const char *request, size_t len, char response[MAX_RESPONSE]) {
    static const char name[] = "\r\nsec-websocket-key:", magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *end = request + len, *at = request;
    while (at < end && (size_t)(end - at) > sizeof name && strncasecmp(at, name, sizeof name - 1)) at++;
    at += sizeof name - 1;
    while (at < end && *at == ' ') at++;
    if (at + 24 > end || memcmp(request, "GET ", 4)) return 0;
    char key[24 + sizeof magic];
    memcpy(key, at, 24);
    memcpy(key + 24, magic, sizeof magic);
    unsigned char digest[20];
    char accept[29];
    sha1(key, 24 + sizeof magic - 1, digest);
    base64(digest, accept);
    return snprintf(response, MAX_RESPONSE,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
}
