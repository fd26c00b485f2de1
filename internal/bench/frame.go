//go:build linux

package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opBinary = 2
	opClose  = 8
)

// appendFrame appends one whole WebSocket message (RFC 6455, section 5.2). A
// client masks; the key is always the same, there is nobody to protect.
func appendFrame(dst []byte, op byte, payload []byte, masked bool) []byte {
	var bit byte
	if masked {
		bit = 0x80
	}
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, bit|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, bit|127), uint64(n))
	}
	if masked {
		dst = append(dst, maskKey...)
	}
	at := len(dst)
	dst = append(dst, payload...)
	if masked {
		mask(dst[at:], [4]byte([]byte(maskKey)))
	}
	return dst
}

const maskKey = "\x37\xfa\x21\x3d"

func mask(p []byte, key [4]byte) {
	word := uint64(binary.LittleEndian.Uint32(key[:]))
	word |= word << 32
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^word)
	}
	for i := range p {
		p[i] ^= key[i&3]
	}
}

// cutFrame takes the first frame off p and unmasks it in place. n is 0 when p
// doesn't hold a whole one yet.
func cutFrame(p []byte) (op byte, payload []byte, n int) {
	if len(p) < 2 {
		return 0, nil, 0
	}
	at, size := 2, uint64(p[1]&0x7f)
	switch size {
	case 126:
		if len(p) < 4 {
			return 0, nil, 0
		}
		at, size = 4, uint64(binary.BigEndian.Uint16(p[2:]))
	case 127:
		if len(p) < 10 {
			return 0, nil, 0
		}
		at, size = 10, binary.BigEndian.Uint64(p[2:])
	}
	masked := p[1]&0x80 != 0
	if masked {
		at += 4
	}
	if len(p) < at || uint64(len(p)-at) < size {
		return 0, nil, 0
	}
	payload = p[at : at+int(size)]
	if masked {
		mask(payload, [4]byte(p[at-4:at]))
	}
	return p[0] & 0x0f, payload, at + int(size)
}

// acceptKey answers a handshake's Sec-WebSocket-Key (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
