package upgrade

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/limpet-go/limpet/internal/closecode"
)

// closeFrame returns a close frame (RFC 6455, section 5.5.1). A reason that is too
// long is cut behind the last character that fits. A code that must not be sent (see
// [closecode.Sendable]) gives a frame with neither code nor reason.
func closeFrame(code int, reason string, masked bool) []byte {
	b := []byte{finBit | opClose, 0}
	if masked {
		b[1] = maskBit
		b = binary.BigEndian.AppendUint32(b, rand.Uint32())
	}
	payload := len(b)
	if closecode.Sendable(code) {
		b = binary.BigEndian.AppendUint16(b, uint16(code))
		b = append(b, closecode.Reason(reason)...)
	}
	b[1] |= byte(len(b) - payload)
	if masked {
		for i := payload; i < len(b); i++ {
			b[i] ^= b[2+(i-payload)%4]
		}
	}
	return b
}
