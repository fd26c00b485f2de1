package upgrade

import (
	"encoding/binary"
	"math/rand/v2"
	"unicode/utf8"
)

// closeFrame returns a close frame (RFC 6455, section 5.5.1). The reason is cut
// to what fits, at a character's end. A code that may not be on the wire gives a
// frame without one.
func closeFrame(code int, reason string, masked bool) []byte {
	b := []byte{finBit | opClose, 0}
	if masked {
		b[1] = maskBit
		b = binary.BigEndian.AppendUint32(b, rand.Uint32())
	}
	payload := len(b)
	if sendable(code) {
		b = binary.BigEndian.AppendUint16(b, uint16(code))
		b = append(b, fitting(reason, maxShort-2)...)
	}
	b[1] |= byte(len(b) - payload)
	if masked {
		for i := payload; i < len(b); i++ {
			b[i] ^= b[2+(i-payload)%4]
		}
	}
	return b
}

// sendable follows RFC 6455, section 7.4.
func sendable(code int) bool {
	switch code {
	case 1004, noCode, 1006, 1015:
		return false
	}
	return code >= 1000 && code < 5000
}

func fitting(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}
